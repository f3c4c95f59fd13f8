"""The estimator as its user sees it: over a simulation, with keys of full length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

import fednb
from fednb.errors import DataError, QuotaExceeded
from fednb.federation.frame import VerticalFrame
from fednb.federation.views import MIME, decode
from fednb.models import Evaluation, VerticalLogisticRegression, Withheld

ROWS = 240


def tables(rows: int = ROWS) -> dict[str, dict[str, pd.DataFrame]]:
    """Three parties; the label depends on all of them."""
    rng = np.random.default_rng(11)
    X = rng.normal(size=(rows, 5))
    label = (X @ [1.0, -0.5, 0.8, -0.7, 0.6] + rng.logistic(size=rows) > 0).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(rows)]
    bank = pd.DataFrame({"sme_id": ids, "income": X[:, 0], "debt": X[:, 1], "default": label})
    agency = pd.DataFrame({"sme_id": [i.lower().replace("-", " ") for i in ids], "turnover": X[:, 2], "delay": X[:, 3]})
    utility = pd.DataFrame({"customer": ids, "usage": X[:, 4]})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}, "utility": {"meters": utility}}


@pytest.fixture(scope="module")
def federation() -> Iterator[fednb.Federation]:
    with fednb.simulate(tables(), release={"utility": ["coefficients"]}, decryption_quota=5) as federation:
        yield federation


@pytest.fixture(scope="module")
def frame(federation: fednb.Federation) -> VerticalFrame:
    return federation.align(
        {"bank": "loans", "agency": "invoices", "utility": "meters"},
        on={"bank": "sme_id", "agency": "sme_id", "utility": "customer"},
    )


@pytest.fixture(scope="module")
def model(frame: VerticalFrame) -> VerticalLogisticRegression:
    return VerticalLogisticRegression(max_iter=12).fit(frame, y="bank.default")


def joined() -> tuple[np.ndarray, np.ndarray]:
    own = tables()
    X = np.column_stack(
        [
            own["bank"]["loans"][["income", "debt"]],
            own["agency"]["invoices"][["turnover", "delay"]],
            own["utility"]["meters"][["usage"]],
        ]
    )
    y = own["bank"]["loans"]["default"].to_numpy()
    return np.clip((X - X.mean(axis=0)) / X.std(axis=0), -4, 4), y


def test_three_parties_reach_the_centralised_model(model: VerticalLogisticRegression) -> None:
    Z, y = joined()
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(Z, y)
    assert np.asarray(model.coef_["bank"]) == pytest.approx(expected.coef_[0][:2], abs=0.05)
    assert np.asarray(model.coef_["utility"]) == pytest.approx(expected.coef_[0][4:], abs=0.05)
    assert model.intercept_ == pytest.approx(float(expected.intercept_[0]), abs=0.05)


def test_a_passive_partys_coefficients_are_withheld_unless_it_releases_them(model: VerticalLogisticRegression) -> None:
    assert isinstance(model.coef_["agency"], Withheld)
    assert "agency" in repr(model.coef_["agency"]) and len(model.coef_["agency"]) == 2
    assert list(model.coef_["utility"].index) == ["usage"]
    shown = {part.member: part.values for part in model.view().parts}
    assert shown["agency"] is None and shown["utility"] is not None and shown["bank"] is not None


def test_evaluate_gives_figures_with_intervals(model: VerticalLogisticRegression, frame: VerticalFrame) -> None:
    evaluation = model.evaluate(frame)
    Z, y = joined()
    central = LogisticRegression(C=1.0).fit(Z, y)
    expected = Evaluation.of(y, central.predict_proba(Z)[:, 1])
    assert evaluation.auc == pytest.approx(expected.auc, abs=0.01)
    assert evaluation.auc_interval[0] < evaluation.auc < evaluation.auc_interval[1]
    assert evaluation.gini == pytest.approx(2 * evaluation.auc - 1)
    assert evaluation.rows == ROWS and len(evaluation.roc()) > 5
    assert Evaluation.from_dict(evaluation.to_dict()).to_dict() == evaluation.to_dict()
    assert "evaluation" in str(decode(model._repr_mimebundle_()[MIME]))


def test_scores_stay_at_the_active_party(
    model: VerticalLogisticRegression, frame: VerticalFrame, federation: fednb.Federation
) -> None:
    train, test = frame.split(test_size=0.4, random_state=0)
    scores = model.predict_proba(test)
    assert scores.party == "bank" and len(scores) == len(test) == 96
    summary = scores.summary()
    assert summary["rows"] == 96 and 0 < summary["p10"] < summary["p90"] < 1
    scores.save("test_scores")
    held = federation.tables().set_index(["party", "table"])
    assert held.loc[("bank", "test_scores"), "rows"] == 96
    assert "0." not in repr(scores)


def test_a_passive_party_cannot_take_the_active_ones_seat(
    model: VerticalLogisticRegression, frame: VerticalFrame, federation: fednb.Federation
) -> None:
    with pytest.raises(DataError, match="agency was not the active party of this model"):
        federation.run(
            "vertical_score",
            cast={"active": ["agency"], "passive": ["bank", "utility"]},
            data=frame.refs(part=model.run_, drop={"bank": ["default"]}),
        )


def test_it_follows_scikit_learns_conventions(model: VerticalLogisticRegression, frame: VerticalFrame) -> None:
    again = clone(model)
    assert again.get_params() == model.get_params() and not hasattr(again, "coef_")
    assert again.set_params(C=0.1).C == 0.1
    with pytest.raises(NotFittedError):
        again.predict_proba(frame)


def test_history_and_cost_are_kept(model: VerticalLogisticRegression) -> None:
    assert len(model.history_) == model.n_iter_
    assert model.history_["gradient_norm"].iloc[-1] < model.history_["gradient_norm"].iloc[0] / 10
    assert model.operations_["decrypt"] == model.n_iter_ * 6  # five features and an intercept
    assert model.bytes_ > 0


def changed(party: str, table: str, column: str, values: object) -> dict[str, dict[str, pd.DataFrame]]:
    own = tables(60)
    own[party][table][column] = values
    return own


@pytest.mark.parametrize(
    ("data", "y", "message"),
    [
        (changed("agency", "invoices", "delay", np.nan), "bank.default", "agency.*'delay'.*missing"),
        (changed("agency", "invoices", "delay", 3.0), "bank.default", "agency has the same value.*'delay'"),
        (changed("agency", "invoices", "delay", "late"), "bank.default", "agency.*delay.*not numeric|agency.*number"),
        (changed("bank", "loans", "default", range(60)), "bank.default", "bank.*'default'.*not binary"),
        (changed("bank", "loans", "default", 1), "bank.default", "bank.*'default'.*one class"),
        (changed("bank", "loans", "default", np.nan), "bank.default", "bank.*'default'.*missing"),
        (tables(60), "bank.dflt", "bank holds no column 'dflt'"),
        (tables(60), "default", "names no party"),
        (tables(60), "utility.usage", "names no party"),
        (tables(3), "bank.default", "features and 3 rows|one class"),
    ],
    ids=["nan", "constant", "text", "not binary", "one class", "no label", "column", "no party", "not in", "few rows"],
)
def test_data_that_cannot_be_used_is_named(
    data: dict[str, dict[str, pd.DataFrame]], y: str, message: str, recwarn: pytest.WarningsRecorder
) -> None:
    with fednb.simulate(data, decryption_quota=5) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        with pytest.raises(DataError, match=f"(?is){message}"):
            VerticalLogisticRegression(max_iter=2).fit(frame, y=y)


def test_the_quota_counts_over_fits_and_names_itself() -> None:
    with fednb.simulate(tables(100), decryption_quota=0.2) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        VerticalLogisticRegression(max_iter=4, tol=0).fit(frame, y="bank.default")  # 12 slots of 20
        with pytest.raises(QuotaExceeded, match=r"decrypted 12 slots of bank\.loans\.default for bank.*quota.*20"):
            VerticalLogisticRegression(max_iter=4, tol=0).fit(frame, y="bank.default")


def test_a_label_named_for_another_party_opens_no_new_account() -> None:
    with fednb.simulate(tables(100), decryption_quota=0.2) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        refs = frame.refs(label=("bank", "default"))
        cast = {"active": ["bank"], "passive": ["agency"], "coordinator": ["coordinator"]}
        for attempt in range(2):
            data = {"agency": msgspec.structs.replace(refs["agency"], label=f"anything{attempt}"), "bank": refs["bank"]}
            expected = pytest.raises(QuotaExceeded, match=r"of bank\.loans\.default") if attempt else nullcontext()
            with expected:
                federation.run("vertical_logistic", cast=cast, data=data, params={"max_iter": 4, "tol": 0.0})
        with pytest.raises(DataError, match="bank was given the label's role without"):
            bare = {**refs, "bank": msgspec.structs.replace(refs["bank"], label=None)}
            federation.run("vertical_logistic", cast=cast, data=bare, params={"max_iter": 1})


def test_a_model_scores_only_frames_that_have_its_columns(model: VerticalLogisticRegression) -> None:
    own = tables()
    own["agency"]["invoices"] = own["agency"]["invoices"].rename(columns={"delay": "days"})
    with fednb.simulate(own) as federation:
        other = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        with pytest.raises(DataError, match="trained on agency's delay"):
            model.predict_proba(other)


def test_class_weights_and_warm_starts_as_in_scikit_learn() -> None:
    own = tables()
    own["bank"]["loans"].loc[::2, "default"] = 0
    X = np.column_stack([own["bank"]["loans"][["income", "debt"]], own["agency"]["invoices"][["turnover", "delay"]]])
    y, Z = own["bank"]["loans"]["default"], np.clip((X - X.mean(axis=0)) / X.std(axis=0), -4, 4)
    with fednb.simulate(own, release={"agency": ["coefficients"]}, decryption_quota=5) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        model = VerticalLogisticRegression(class_weight={1: 3.0}, warm_start=True).fit(frame, y="bank.default")
        expected = LogisticRegression(class_weight={1: 3.0}).fit(Z, y)
        found = np.concatenate([model.coef_["bank"], model.coef_["agency"]])
        assert found == pytest.approx(expected.coef_[0], abs=0.05)
        assert model.intercept_ == pytest.approx(float(expected.intercept_[0]), abs=0.05)
        first = model.run_, model.n_iter_, model.history_["gradient_norm"].iloc[0]
        model.fit(frame, y="bank.default")
        assert model.run_ != first[0] and model.n_iter_ < first[1] / 2
        assert model.history_["gradient_norm"].iloc[0] < first[2] / 20
        narrower = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        narrower.columns["agency"] = ("turnover",)
        with pytest.raises(DataError, match="features of the last fit"):
            model.fit(narrower, y="bank.default")
        with pytest.raises(DataError, match="class_weight is None"):
            VerticalLogisticRegression(class_weight="heavy").fit(frame, y="bank.default")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"penalty": "l3"}, "penalty is"),
        ({"penalty": "elasticnet"}, "l1_ratio between 0 and 1, not None"),
        ({"penalty": "elasticnet", "l1_ratio": 1.5}, "l1_ratio between 0 and 1, not 1.5"),
        ({"penalty": "l2", "l1_ratio": 0.5}, "with penalty='elasticnet' only"),
    ],
)
def test_penalties_that_mean_nothing_are_refused(frame: VerticalFrame, params: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        VerticalLogisticRegression(**params).fit(frame, y="bank.default")


def test_l1_leaves_coefficients_out_as_in_scikit_learn(frame: VerticalFrame) -> None:
    model = VerticalLogisticRegression(0.03, penalty="l1", max_iter=15).fit(frame, y="bank.default")
    Z, y = joined()
    expected = LogisticRegression(C=0.03, l1_ratio=1.0, solver="saga", tol=1e-6, max_iter=5000).fit(Z, y).coef_[0]
    assert np.asarray(model.coef_["bank"]) == pytest.approx(expected[:2], abs=0.03)
    assert (np.asarray(model.coef_["bank"]) == 0).tolist() == (expected[:2] == 0).tolist()
