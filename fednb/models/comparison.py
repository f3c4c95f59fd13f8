"""Two models beside each other: what the better one is worth, with intervals; and whether scores have shifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from fednb.errors import DataError
from fednb.federation.messages import DataRef
from fednb.federation.views import ComparisonView, Estimate, EvaluationView, bundle
from fednb.models.evaluation import Evaluation
from fednb.models.scores import Scores
from fednb.protocols.comparison import Compared, Difference

if TYPE_CHECKING:
    import pandas as pd


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    psi: float


class Comparison:
    """Differences of two models on the same rows: the second's figures minus the first's.

    Attributes
    ----------
    auc, ks, approved : Difference with first, second, change, low, high (interval) and p. `approved` is the largest
        share of rows that can be approved with a share of positives among them of at most `bad_rate`.
    rows, positives : int; bad_rate : float.
    """

    def __init__(self, compared: Compared, names: tuple[str, str]) -> None:
        self.names = names
        self.rows, self.positives, self.bad_rate = compared.rows, compared.positives, compared.bad_rate
        self.auc: Difference = compared.auc
        self.ks: Difference = compared.ks
        self.approved: Difference = compared.approved

    def table(self) -> pd.DataFrame:
        """A line for each of auc, ks and approved: both figures, the change, its interval and p."""
        import pandas as pd

        lines = [msgspec.structs.asdict(figure) for figure in (self.auc, self.ks, self.approved)]
        made = pd.DataFrame(lines, index=pd.Index(["auc", "ks", "approved"], name="figure"))
        return made.rename(columns={"first": self.names[0], "second": self.names[1]})

    def view(self) -> ComparisonView:
        """Both models in one figure, whose title says the changes."""
        results = {
            name: EvaluationView(
                auc=Estimate(value=getattr(self.auc, which)),
                ks=Estimate(value=getattr(self.ks, which)),
                rows=self.rows,
                positives=self.positives,
            )
            for name, which in zip(self.names, ("first", "second"), strict=True)
        }
        changes = ", ".join(
            f"{name} {figure.change:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"
            for name, figure in (("AUC", self.auc), ("KS", self.ks), ("approved", self.approved))
        )
        return ComparisonView(results=results, title=changes)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.view(), repr(self))

    def __repr__(self) -> str:
        said = ", ".join(
            f"{name} {figure.change:+.4f} ({figure.low:+.4f} to {figure.high:+.4f})"
            for name, figure in (("AUC", self.auc), ("KS", self.ks), ("approved", self.approved))
        )
        return f"<Comparison of {self.names[1]} with {self.names[0]}: {said}; {self.rows:,} rows>"


class ModelComparison:
    """Several models' evaluations beside each other: a table, and in a notebook one figure."""

    def __init__(self, evaluations: Mapping[str, Evaluation]) -> None:
        self.evaluations = dict(evaluations)

    def table(self) -> pd.DataFrame:
        """A line a model: auc, ks, gini, log_loss and brier, each with low and high, and the rows."""
        import pandas as pd

        lines = {}
        for name, found in self.evaluations.items():
            line: dict[str, float] = {}
            for figure in ("auc", "ks", "gini", "log_loss", "brier"):
                line[figure] = getattr(found, figure)
                line[f"{figure}_low"], line[f"{figure}_high"] = getattr(found, f"{figure}_interval")
            lines[name] = line | {"rows": found.rows, "positives": found.positives}
        return pd.DataFrame.from_dict(lines, orient="index")

    def view(self) -> ComparisonView:
        """The figure for a front end."""
        return ComparisonView(results={name: found.view() for name, found in self.evaluations.items()})

    def __repr__(self) -> str:
        return self.view().plain()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.view())


def compare_models(evaluations: Mapping[str, Evaluation]) -> ModelComparison:
    """Evaluations by name, such as {"bank only": own.evaluate(test), "federated": model.evaluate(test)}, in one figure.

    Intervals are each model's own. Whether two models on the same rows differ, `compare_scores` tells with more power.
    """
    if not evaluations or not all(isinstance(found, Evaluation) for found in evaluations.values()):
        raise DataError("give evaluations by name, such as {'bank only': own.evaluate(test), ...}.")
    return ModelComparison(evaluations)


def compare_scores(
    first: Scores,
    second: Scores,
    y: str,
    *,
    bad_rate: float | None = None,
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Have the holder of two models' scores on the same rows say what the second is worth beside the first.

    Differences of AUC (DeLong), KS and the share that can be approved at a fixed bad rate (paired bootstrap), of 100
    rows or more with ten of each class. `bad_rate`: of those approved; None: half of all rows' rate.
    """
    party, label = second.frame.find_label(y)
    if not (first.party == second.party == party) or len(first) != len(second):
        raise DataError("both models' scores must be of the same rows, at the party that holds the label.")
    result = second.frame.federation.run(
        "comparison",
        cast={"active": [party]},
        data={party: msgspec.structs.replace(second.ref(label=label), part=None, parts=[first.run, second.run])},
        params={} if bad_rate is None else {"bad_rate": float(bad_rate)},
        title=f"Comparison on {len(second)} rows",
    )
    return Comparison(result.read(party, Compared), names)


def score_stability(then: Scores, now: Scores) -> float:
    """The population stability index of scores `now` beside those `then`, to two digits; 100 rows or more each.

    By custom below 0.1 is stable, above 0.25 is not.
    """
    if then.party != now.party:
        raise DataError("both lots of scores must lie at the same party.")
    result = now.frame.federation.run(
        "score_stability",
        cast={"active": [now.party]},
        data={now.party: DataRef(parts=[then.run, now.run])},
        title=f"Stability of {len(now)} scores",
    )
    return result.read(now.party, _Index).psi
