"""Cards: every view can be drawn, says in words what it shows, and shows a stranger's text as text."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from fednb.federation.views import (
    AlignmentView,
    AnyView,
    BinnedFeature,
    BinningView,
    Calibration,
    Coefficients,
    ComparisonView,
    EnsembleView,
    Estimate,
    EvaluationView,
    FeatureLine,
    FrameView,
    Importance,
    ModelView,
    PartyAlignment,
    ProfileView,
    Roc,
    ScoresView,
    TreeNode,
)
from fednb.notebook.palette import looks
from fednb.notebook.widgets import outputs
from fednb.notebook.widgets.alignment import lens_distance
from fednb.notebook.widgets.card import Card, html_table
from fednb.notebook.widgets.comparison import comparison, comparison_table

EVIL = '<img src=x onerror="alert(1)">$\\frac{1}{0}$\x1b[31m'
STYLES = looks(["bank", "agency"])


def party(name: str, ids: int = 100, **more: Any) -> PartyAlignment:
    return PartyAlignment(member=name, table="t", rows=ids + 3, ids=ids, duplicates=3, formats={"AA-99": ids}, **more)


def evaluation(**more: Any) -> EvaluationView:
    return EvaluationView(
        auc=Estimate(value=0.72, low=0.70, high=0.74),
        ks=Estimate(value=0.35),
        rows=1000,
        positives=100,
        roc=Roc(fpr=[0, 0.5, 1], tpr=[0, 0.8, 1]),
        calibration=Calibration(predicted=[0.1, None], observed=[0.12, 0.3], rows=[500, 500]),
        **more,
    )


def model(**more: Any) -> ModelView:
    parts = [
        Coefficients(member="bank", columns=["income", "age"], values=[-0.5, None]),
        Coefficients(member="agency", columns=["turnover"], withheld="only this party sees them"),
    ]
    return ModelView(title="VerticalLogisticRegression", parts=parts, intercept=-1.5, **more)


def ensemble(member: str = "agency", feature: str = "#3", **more: Any) -> EnsembleView:
    return EnsembleView(
        title="SecureBoostClassifier",
        members=["bank", member],
        importance=[
            Importance(party="bank", feature="income", gain=30.0, cover=10.0, frequency=2),
            Importance(party=member, feature=feature, gain=10.0, cover=12.5, frequency=1),
        ],
        tree=[TreeNode(party=member, feature=feature, gain=9.0, cover=20.0, left=1), TreeNode(), TreeNode(cover=3.0)],
        rounds=7,
        **more,
    )


def binned(party: str, feature: str, bins: int = 4, **more: Any) -> BinnedFeature:
    return BinnedFeature(
        party=party,
        feature=feature,
        own=party == "bank",
        holds=["values"] * (bins - 1) + ["missing"],
        cells=[2] * bins,
        rows=[250] * bins,
        positives=[20 * (b + 1) for b in range(bins)],
        woe=[0.4 - 0.2 * b for b in range(bins)],
        iv=[0.02 * b for b in range(bins)],
        **more,
    )


def profile(name: str = "agency", **more: Any) -> ProfileView:
    bars = {"edges": [0, 1, 3], "counts": [9, 1]}
    line = FeatureLine(party="bank", feature="income", missing=0.6, mean=-3.5e7, sd=0.01, **bars)
    other = FeatureLine(party=name, feature=name, label=-0.0, psi=0.31, vif=12.0, nearest=f"{name}.x", near=-0.9)
    odd = FeatureLine(party=name, feature="town", kind="text", note="it is text", edges=[1, 1], counts=[3])
    return ProfileView(features=[line, other, odd], members=["bank", name], rows=1000, rate=0.2, **more)


VIEWS: dict[str, AnyView] = {
    "a profile": profile(label="bank.default", newer=200, ranked="information value", part="train"),
    "a bare profile": ProfileView(),
    "a stranger's profile": profile(EVIL, label=EVIL, ranked=EVIL, notes=[EVIL]),
    "a profile of many": ProfileView(
        members=["bank"], rows=9, features=[FeatureLine(party="bank", feature=f"c{i}", iv=0.1) for i in range(60)]
    ),
    "two parties": AlignmentView(matched=70, parties=[party("bank"), party("agency", 90)], seconds=1.0),
    "three parties": AlignmentView(matched=7, parties=[party(name) for name in ("bank", "agency", "telco")]),
    "four parties": AlignmentView(matched=7, parties=[party(name) for name in ("bank", "agency", "telco", "x")]),
    "nothing in common": AlignmentView(matched=0, parties=[party("bank"), party("agency", 0)]),
    "a frame": FrameView(frame="f", rows=70, columns={"bank": ["a"]}, labels=["bank.y"], part="train, 70 %"),
    "a model": model(history={"gradient_norm": [1.0, 0.1, 0.001]}, evaluation=evaluation(name="test")),
    "a bare model": ModelView(title="m"),
    "many coefficients": ModelView(
        title="m", parts=[Coefficients(member="bank", columns=[f"c{i}" for i in range(60)], values=[0.0] * 60)]
    ),
    "an ensemble": ensemble(history={"loss": [0.6, 0.5], "validation_loss": [0.7, 0.65]}, evaluation=evaluation()),
    "a bare ensemble": EnsembleView(title="e"),
    "a stranger's ensemble": ensemble(EVIL, EVIL, metric=EVIL, label=EVIL, notes=[EVIL], history={"loss": [1.0]}),
    "a comparison": ComparisonView(results={"bank only": evaluation(), "federated": evaluation()}, title="t"),
    "runs": ComparisonView(
        results=dict.fromkeys(("a", "b", "c"), EvaluationView(auc=Estimate(value=0.7), ks=Estimate(value=None))),
        curve="gradient norm",
        curves={"a": [1.0, None, 0.001], "b": [], "c": [2.0]},
    ),
    "no runs": ComparisonView(results={}),
    "a stranger's comparison": ComparisonView(
        results={EVIL: evaluation(name=EVIL)}, title=EVIL, curve=EVIL, curves={EVIL: [1.0, 2.0]}
    ),
    "bins": BinningView(
        features=[binned("bank", f"x{k}", 3 + k, dropped="one bin only" if k > 4 else "") for k in range(20)],
        label="bank.default",
        rows=1000,
        notes=["a note"],
    ),
    "no bins": BinningView(features=[]),
    "a stranger's bins": BinningView(
        features=[
            BinnedFeature(
                party=EVIL, feature=EVIL, own=False, holds=[EVIL], cells=[1], rows=[1], positives=[1], woe=[0], iv=[0]
            )
        ],
        label=EVIL,
        notes=[EVIL],
    ),
    "an evaluation": evaluation(member="bank", label="bank.default"),
    "a bare evaluation": EvaluationView(auc=Estimate(value=None), ks=Estimate(value=None)),
    "scores": ScoresView(member="bank", rows=10, summary={"mean": 0.1}, edges=[0, 0.5, 1], counts=[3, 7]),
    "bare scores": ScoresView(member="bank", rows=10),
    "a stranger's names": ModelView(
        title=EVIL,
        label=EVIL,
        parts=[Coefficients(member=EVIL, columns=[EVIL], values=[1.0]), Coefficients(member="b", withheld=EVIL)],
        notes=[EVIL],
        history={EVIL: [1.0, 2.0]},
        evaluation=evaluation(name=EVIL, member=EVIL),
    ),
    "names that the font lacks": ScoresView(member="银行", rows=10, edges=[0, 0.5, 1], counts=[3, 7], saved="分数"),
    "a stranger's ids": AlignmentView(
        matched=1, parties=[PartyAlignment(member=EVIL, table=EVIL, formats={EVIL: 1}), party("bank")]
    ),
}


def png(bundle: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_has_an_output_that_reads_without_a_kernel(name: str) -> None:
    for data, metadata in outputs(VIEWS[name], STYLES):
        assert set(data) <= {"image/png", "text/html", "text/plain"} and data["text/plain"]
        if "image/png" in data:
            size = metadata["image/png"]
            assert png(data).size == (2 * size["width"], 2 * size["height"])
            assert size["alt"], "who cannot see the picture gets its words"


@pytest.mark.parametrize("name", [name for name in VIEWS if name.startswith("a stranger's ")])
def test_a_strangers_text_never_becomes_markup_nor_terminal_control(name: str) -> None:
    shown = outputs(VIEWS[name], STYLES)
    markup = "".join(data.get("text/html", "") for data, _ in shown)
    assert "onerror" in markup and "<img" not in markup
    assert "\x1b" not in markup
    tables = [data["text/plain"] for data, _ in shown if "text/html" in data]
    assert "\x1b" not in "".join(tables)


def test_an_ensembles_words_say_who_contributes_what() -> None:
    (card, _), (table, _) = outputs(VIEWS["an ensemble"], STYLES)
    assert "bank: 75% of the gain" in card["text/plain"] and "agency: 25%" in card["text/plain"]
    assert "#3" in table["text/plain"] and "12.5" in table["text/plain"]


def test_a_profile_says_in_words_and_in_its_table_what_the_picture_shows() -> None:
    (card, _), (table, _) = outputs(VIEWS["a profile"], STYLES)
    words = card["text/plain"]
    assert "Profile of 3 features at bank, agency, 1,000 rows (train)" in words
    assert "agency.agency: r with label -0, PSI 0.31, VIF 12" in words and "agency.town: it is text" in words
    assert "<details><summary>All features" in table["text/html"], "it opens with the keyboard, in any theme"
    assert "60.0%" in table["text/plain"] and "agency.x" in table["text/plain"] and "-0.9" in table["text/plain"]
    (_, _), (many, _) = outputs(VIEWS["a profile of many"], STYLES)
    assert many["text/html"].count('<th scope="row"') == 60


def test_a_table_escapes_every_place() -> None:
    made = html_table(EVIL, [EVIL], [[EVIL, EVIL]], folded=True)
    assert made.count("&lt;img") == 4 and "<img" not in made


def test_a_card_leaves_the_users_own_plots_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plt.rcParams, "figure.autolayout", True)
    monkeypatch.setitem(plt.rcParams, "savefig.bbox", "tight")
    before = plt.get_fignums()
    with Image.open(io.BytesIO(Card("title", height=1.0).png())) as image:
        assert image.size == (1680, 200), "the user's settings must not crop it"
    assert plt.get_fignums() == before


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_overlapping_circles_are_to_scale(share: float) -> None:
    import math

    r = s = 1.0
    d = lens_distance(r, s, share * math.pi)
    area = 2 * math.acos(d / 2) - d / 2 * math.sqrt(4 - d * d)
    assert area == pytest.approx(share * math.pi, abs=1e-6)


def test_a_comparison_takes_views_mappings_and_objects_alike() -> None:
    class Fitted:
        def view(self) -> EvaluationView:
            return evaluation()

    results = {"alone": {"auc": 0.6, "ks": (0.3, 0.2, 0.4)}, "federated": evaluation(), "joined": Fitted()}
    card = comparison(results)
    assert card.alt.startswith("alone: AUC 0.6000, KS 0.3000 (0.2000 to 0.4000); federated: AUC 0.7200")
    data, _ = card.bundle("words")
    assert png(data).size[0] == 1680
    table = comparison_table(results)
    assert list(table.columns) == ["auc", "auc_low", "auc_high", "ks", "ks_low", "ks_high"]
    assert table.loc["joined", "auc_high"] == 0.74


@pytest.mark.parametrize("results", [{}, {"x": 3}, {"x": {"auc": 0.5}}])
def test_a_comparison_of_nothing_is_refused(results: Any) -> None:
    with pytest.raises(ValueError, match="nothing to compare|not an evaluation"):
        comparison(results)
