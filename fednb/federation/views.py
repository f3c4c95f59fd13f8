"""What a coordinator's cell says about its results: small typed structs instead of HTML.

HTML and JavaScript from a remote member are not for the analyst's browser. So an object such as a `VerticalFrame`
or a fitted model describes itself with one of these structs under one MIME type, and the analyst's own kernel
decodes it strictly and draws it (`fednb.notebook.widgets.show`). They hold names, counts and released aggregates;
a front end that does not know the type shows the plain text beside it.

    object ── bundle(view) ──> {"application/vnd.fednb.view+json": {...}, "text/plain": "..."} ── decode ──> view
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fednb.text import plain
from fednb.typed import known

MIME = "application/vnd.fednb.view+json"

MOST_TEXT = 100_000  # characters

Label = Annotated[str, Meta(max_length=300)]  # a name, a title or a short reason
Sentence = Annotated[str, Meta(max_length=2_000)]
Count = Annotated[int, Meta(ge=0)]
Number = float | None  # None where it is not defined or not finite (JSON has no NaN)
Numbers = Annotated[list[Number], Meta(max_length=5_000)]
Names = Annotated[list[Label], Meta(max_length=20_000)]
Counts = Annotated[dict[Label, Count], Meta(max_length=200)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the structs inside a view."""


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="view"):
    """Base of the views; `plain()` is what reads without any front end."""

    def plain(self) -> str:
        """A few lines of text that say the same; the names in it, which are other members', are made harmless."""
        return plain(self._text(), MOST_TEXT)

    def _text(self) -> str:
        raise TypeError(f"{type(self).__name__} has no plain text")


class Estimate(Part, frozen=True):
    """A figure with its confidence interval, where there is one."""

    value: Number
    low: Number = None
    high: Number = None

    def text(self, digits: int = 4) -> str:
        """`0.7219 (0.7101 to 0.7337)`"""
        if self.value is None:
            return "not defined"
        middle = f"{self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return middle
        return f"{middle} ({self.low:.{digits}f} to {self.high:.{digits}f})"


# ---------------------------------------------------------------- alignment and frames


class PartyAlignment(Part, frozen=True):
    """What one party found in its own ids."""

    member: Label
    table: Label = ""
    on: Names = []  # its id columns
    rows: Count = 0
    ids: Count = 0  # distinct ids after normalisation, as they entered the intersection
    duplicates: Count = 0  # rows left out because their id had been seen before
    missing: Count = 0  # rows left out because they have no id
    formats: Counts = {}  # shape of the ids as written ("AA-999999") -> rows
    bytes_out: Count = 0
    bytes_in: Count = 0


class AlignmentView(View, frozen=True, tag="alignment"):
    """How the tables of two or more parties overlap."""

    parties: Annotated[list[PartyAlignment], Meta(max_length=64)]
    matched: Count  # ids that every party has
    run: Label = ""
    seconds: Number = None
    notes: Annotated[list[Sentence], Meta(max_length=50)] = []

    def _text(self) -> str:
        sets = ", ".join(f"{p.member} {p.ids:,}" for p in self.parties)
        return "\n".join([f"{self.matched:,} ids in common ({sets})", *(f"  note: {note}" for note in self.notes)])


class FrameView(View, frozen=True, tag="frame"):
    """Names and shapes of an aligned frame."""

    frame: Label
    rows: Count
    columns: dict[Label, Names]  # member -> its columns
    labels: Names = []  # "bank.default"
    part: Label = ""  # "train, 70 %": which rows of the alignment these are
    alignment: AlignmentView | None = None

    def _text(self) -> str:
        columns = ", ".join(f"{member} {len(names)}" for member, names in self.columns.items())
        part = f" ({self.part})" if self.part else ""
        return f"VerticalFrame of {self.rows:,} rows{part}; columns: {columns}"


# ---------------------------------------------------------------- runs


class TrainingView(View, frozen=True, tag="training"):
    """A run to be followed: the figures come from the run's own events, not from here."""

    run: Label
    title: Label = ""

    def _text(self) -> str:
        return f"{self.title or 'run'} [{self.run}]"


# ---------------------------------------------------------------- models and their evaluation


class Coefficients(Part, frozen=True):
    """One party's part of a linear model."""

    member: Label
    columns: Names = []
    values: Numbers | None = None  # by column; None: withheld ...
    withheld: Sentence = ""  # ... because of this


class Roc(Part, frozen=True):
    """Points of an ROC curve from (0, 0) to (1, 1); KS and gains curves follow from it and the counts."""

    fpr: Numbers
    tpr: Numbers
    threshold: Numbers = []  # score at each point, where released


class Calibration(Part, frozen=True):
    """Mean predicted probability and observed rate, by bin of score."""

    predicted: Numbers
    observed: Numbers
    rows: Annotated[list[Count], Meta(max_length=5_000)] = []


class EvaluationView(View, frozen=True, tag="evaluation"):
    """How well scores separate, as aggregates."""

    auc: Estimate
    ks: Estimate
    gini: Estimate | None = None
    log_loss: Estimate | None = None
    brier: Estimate | None = None  # mean squared difference of probability and label
    name: Label = ""  # "test"
    member: Label = ""  # who holds scores and label
    label: Label = ""
    rows: Count = 0
    positives: Count = 0
    level: float = 0.95  # of the intervals
    roc: Roc | None = None
    calibration: Calibration | None = None

    def _text(self) -> str:
        lines = [f"AUC {self.auc.text()}", f"KS {self.ks.text()}"]
        lines += [f"Gini {self.gini.text()}"] if self.gini else []
        lines += [f"log loss {self.log_loss.text()}"] if self.log_loss else []
        lines += [f"Brier {self.brier.text()}"] if self.brier else []
        return f"Evaluation{' on ' + self.name if self.name else ''}: {', '.join(lines)}; {self.rows:,} rows"


class ModelView(View, frozen=True, tag="model"):
    """A fitted model: coefficients by party, how it was fitted, how well it does."""

    title: Label  # "VerticalLogisticRegression"
    parts: Annotated[list[Coefficients], Meta(max_length=64)] = []
    run: Label = ""
    label: Label = ""  # "bank.default"
    intercept: Number = None
    rows: Count = 0
    iterations: Count = 0
    converged: bool | None = None
    seconds: Number = None
    params: dict[Label, str | int | float | bool | None] = {}
    history: Annotated[dict[Label, Numbers], Meta(max_length=16)] = {}  # metric -> value by iteration
    operations: Counts = {}  # encrypted-arithmetic operations of all members, by kind
    bytes: Count = 0  # payload that crossed between members
    notes: Annotated[list[Sentence], Meta(max_length=50)] = []  # warnings worth reading
    evaluation: EvaluationView | None = None

    def _text(self) -> str:
        lines = [f"{self.title}{' for ' + self.label if self.label else ''}: {self.iterations} iterations"]
        for part in self.parts:
            if part.values is None:
                lines.append(
                    f"  {part.member}: {len(part.columns)} coefficients, withheld: {part.withheld or 'private'}"
                )
            else:
                pairs = zip(part.columns, part.values, strict=False)
                lines.append(f"  {part.member}: " + ", ".join(f"{c} {format_number(v)}" for c, v in pairs))
        lines += [f"  note: {note}" for note in self.notes]
        lines += ["  " + self.evaluation.plain()] if self.evaluation else []
        return "\n".join(lines)


class Importance(Part, frozen=True):
    """How much one feature counts in an ensemble; a passive party's goes by a number, "#3"."""

    party: Label
    feature: Label
    gain: float  # summed over its splits
    cover: float
    frequency: Count


class TreeNode(Part, frozen=True):
    """A node of a tree, without its cut point."""

    party: Label = ""  # whose feature splits it; "": a leaf
    feature: Label = ""
    gain: float = 0.0
    cover: float = 0.0
    left: int = -1  # place of its left child; the right one is the next


class EnsembleView(View, frozen=True, tag="ensemble"):
    """Boosted trees: importance by party, the way there, and the first tree."""

    title: Label  # "SecureBoostClassifier"
    members: Names = []
    importance: Annotated[list[Importance], Meta(max_length=20_000)] = []
    tree: Annotated[list[TreeNode], Meta(max_length=10_000)] = []
    run: Label = ""
    label: Label = ""
    rows: Count = 0
    rounds: Count = 0
    metric: Label = ""
    seconds: Number = None
    params: dict[Label, str | int | float | bool | None] = {}
    history: Annotated[dict[Label, Numbers], Meta(max_length=16)] = {}
    operations: Counts = {}
    bytes: Count = 0
    notes: Annotated[list[Sentence], Meta(max_length=50)] = []
    evaluation: EvaluationView | None = None

    def shares(self) -> dict[str, float]:
        """Each member's share of all gain."""
        total = sum(row.gain for row in self.importance) or 1.0
        return {m: sum(row.gain for row in self.importance if row.party == m) / total for m in self.members}

    def _text(self) -> str:
        lines = [f"{self.title}{' for ' + self.label if self.label else ''}: {self.rounds} rounds, {self.rows:,} rows"]
        lines += [f"  {member}: {share:.0%} of the gain" for member, share in self.shares().items()]
        for name, values in self.history.items():
            lines += [f"  {name.replace('_', ' ')} {format_number(values[-1])} ({self.metric})"] if values else []
        lines += [f"  note: {note}" for note in self.notes]
        lines += ["  " + self.evaluation.plain()] if self.evaluation else []
        return "\n".join(lines)


class ComparisonView(View, frozen=True, tag="comparison"):
    """Several models' figures beside each other."""

    results: Annotated[dict[Label, EvaluationView], Meta(max_length=100)]
    title: Label = ""
    curve: Label = ""  # what `curves` show: "gradient norm"
    curves: Annotated[dict[Label, Numbers], Meta(max_length=100)] = {}  # by iteration, of those that have one

    def _text(self) -> str:
        lines = [self.title or "Comparison"]
        lines += [f"  {name}: AUC {found.auc.text()}, KS {found.ks.text()}" for name, found in self.results.items()]
        return "\n".join(lines)


class BinnedFeature(Part, frozen=True):
    """One feature's bins, in the order of its values; lists are by bin."""

    party: Label
    feature: Label
    own: bool  # of the label's party, so that it may be cut at values
    holds: Names
    cells: Annotated[list[Count], Meta(max_length=1_000)]  # of the fit that each bin joins
    rows: Annotated[list[Count], Meta(max_length=1_000)]
    positives: Annotated[list[Count], Meta(max_length=1_000)]
    woe: Numbers
    iv: Numbers
    edges: Numbers = []  # between bins of ordinary values, where the analyst chose them
    dropped: Sentence = ""  # why it is left out

    @property
    def name(self) -> str:
        return f"{self.party}.{self.feature}"

    @property
    def information(self) -> float:
        """In nats."""
        return sum(value or 0.0 for value in self.iv)


class BinningView(View, frozen=True, tag="binning"):
    """Bins of all features, the most informative feature first."""

    features: Annotated[list[BinnedFeature], Meta(max_length=20_000)]
    label: Label = ""  # "bank.default"
    rows: Count = 0
    notes: Annotated[list[Sentence], Meta(max_length=1_000)] = []
    handle: Annotated[str, Meta(pattern="^[0-9a-f]{0,64}$")] = ""  # by which its kernel finds the binning
    steps: Count = 0  # recounts that can be taken back
    edit: bool = False  # a workbench, where bins are changed

    def _text(self) -> str:
        lines = [f"WoeBinning for {self.label} on {self.rows:,} rows: {len(self.features)} features"]
        lines += [
            f"  {f.name}: information value {f.information:.4f}, {len(f.rows)} bins"
            + (f" (left out: {f.dropped})" if f.dropped else "")
            for f in self.features[:30]
        ]
        lines += [f"  and {len(self.features) - 30} more"] if len(self.features) > 30 else []
        return "\n".join(lines)


class ScoresView(View, frozen=True, tag="scores"):
    """A handle on scores that stay at the active party."""

    member: Label
    rows: Count
    saved: Label = ""  # the table's name, once saved
    summary: dict[Label, Number] = {}  # released aggregates: "mean", "p10", ...
    edges: Numbers = []  # histogram of the scores, where released: [bins + 1]
    counts: Annotated[list[Count], Meta(max_length=1_000)] = []

    def _text(self) -> str:
        summary = ", ".join(f"{name} {format_number(value)}" for name, value in self.summary.items())
        saved = f", saved as {self.saved}" if self.saved else ""
        return f"Scores of {self.rows:,} rows at {self.member}{saved}" + (f": {summary}" if summary else "")


class FeatureLine(Part, frozen=True):
    """What is known of one feature, as far as it was released and asked for."""

    party: Label
    feature: Label
    kind: Label = "number"  # else why it has no figures
    note: Sentence = ""  # the same in words
    missing: Number = None  # share of the rows
    mean: Number = None
    sd: Number = None
    edges: Numbers = []  # of its histogram: [bars + 1]
    counts: Annotated[list[Count], Meta(max_length=1_000)] = []
    iv: Number = None
    label: Number = None  # r with the label
    psi: Number = None
    vif: Number = None
    nearest: Label = ""  # the feature that it goes with most, "party.column" ...
    near: Number = None  # ... and r


class ProfileView(View, frozen=True, tag="profile"):
    """Features of all parties, best first: each one's distribution, and what it has to do with the others."""

    features: Annotated[list[FeatureLine], Meta(max_length=20_000)] = []
    members: Names = []
    rows: Count = 0
    part: Label = ""
    label: Label = ""  # "bank.default"
    rate: Number = None  # of positives
    newer: Count = 0  # rows that psi compares with
    ranked: Label = ""  # by what
    notes: Annotated[list[Sentence], Meta(max_length=50)] = []

    def _text(self) -> str:
        told = f"{self.rows:,} rows{f' ({self.part})' if self.part else ''}"
        lines = [f"Profile of {len(self.features)} features at {', '.join(self.members)}, {told}"]
        for line in self.features[:20]:
            figures = {"IV": line.iv, "r with label": line.label, "PSI": line.psi, "VIF": line.vif}
            said = [f"{name} {format_number(value)}" for name, value in figures.items() if value is not None]
            lines.append(f"  {line.party}.{line.feature}: {', '.join(said) or line.note or line.kind}")
        lines += [f"  and {len(self.features) - 20} more"] if len(self.features) > 20 else []
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


AnyView = (
    AlignmentView
    | FrameView
    | ProfileView
    | TrainingView
    | ModelView
    | EnsembleView
    | EvaluationView
    | ComparisonView
    | BinningView
    | ScoresView
)


def bundle(view: AnyView, text: str | None = None) -> dict[str, Any]:
    """The MIME bundle of a view, for `_repr_mimebundle_`; `text` replaces the plain text."""
    return {MIME: encode(view), "text/plain": view.plain() if text is None else text}


def encode(view: AnyView) -> dict[str, Any]:
    """A view as JSON-able builtins; NumPy scalars and arrays are welcome, and what is not finite becomes None."""
    plain = _finite(msgspec.to_builtins(view, enc_hook=_from_numpy))
    if not isinstance(plain, dict):
        raise TypeError(f"{type(view).__name__} is not a view")
    return plain


def decode(value: object) -> AnyView:
    """A view from what arrived. Raises ValueError when it is not exactly one of the views above."""
    try:
        view: AnyView = msgspec.convert(_harmless(value), known(AnyView))
    except (msgspec.ValidationError, UnicodeError, RecursionError) as exc:
        raise ValueError(f"not a view that this version knows: {exc}") from None
    _check_lengths(view)
    return view


def format_number(value: float | None) -> str:
    """Four significant digits."""
    return "not defined" if value is None else f"{value:.4g}"


def _check_lengths(view: AnyView) -> None:
    """Lists that belong together must be equally long; otherwise a figure would fail half-way."""
    pairs: list[tuple[str, int, int]] = []
    if isinstance(view, ScoresView) and view.counts:
        pairs.append(("edges and counts", len(view.edges), len(view.counts) + 1))
    if isinstance(view, BinningView):
        for f in view.features:
            pairs += [(f.name, len(f.rows), len(each)) for each in (f.holds, f.cells, f.positives, f.woe, f.iv)]
    if isinstance(view, ProfileView):
        pairs += [("edges and counts", len(f.edges), len(f.counts) + 1) for f in view.features if f.counts]
    if isinstance(view, ModelView):
        pairs += [(p.member, len(p.columns), len(p.values)) for p in view.parts if p.values is not None]
    if isinstance(view, EnsembleView) and not all(
        i < node.left < len(view.tree) - 1 for i, node in enumerate(view.tree) if node.party
    ):
        raise ValueError("not a view that can be drawn: a tree whose nodes are not in order")
    evaluations: list[object] = [view.evaluation if isinstance(view, ModelView | EnsembleView) else view]
    if isinstance(view, ComparisonView):
        evaluations = [*view.results.values()]
    for evaluation in evaluations:
        if not isinstance(evaluation, EvaluationView):
            continue
        roc, calibration = evaluation.roc, evaluation.calibration
        if roc is not None:
            pairs.append(("fpr and tpr", len(roc.fpr), len(roc.tpr)))
            pairs += [("fpr and threshold", len(roc.fpr), len(roc.threshold))] if roc.threshold else []
        if calibration is not None:
            pairs.append(("predicted and observed", len(calibration.predicted), len(calibration.observed)))
            if calibration.rows:
                pairs.append(("predicted and rows", len(calibration.predicted), len(calibration.rows)))
    for what, left, right in pairs:
        if left != right:
            raise ValueError(f"not a view that can be drawn: {what} differ in length ({left} and {right})")


def _from_numpy(value: object) -> Any:
    """NumPy's scalars and arrays as Python's own."""
    tolist = getattr(value, "tolist", None)
    if tolist is None:
        raise TypeError(f"a view cannot hold {type(value).__name__}")
    return tolist()


def _harmless(value: Any) -> Any:
    """What a member sent, with its text free of control characters and its numbers finite."""
    if isinstance(value, str):
        return plain(value, MOST_TEXT)
    if isinstance(value, Mapping):
        return {_harmless(key): _harmless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_harmless(item) for item in value]
    return _finite(value)


def _finite(value: Any) -> Any:
    """The same builtins with None for NaN and infinities, which JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
