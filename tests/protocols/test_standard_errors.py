"""Standard errors by the real roles: beside statsmodels on the joined table, and what crossed on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from fednb.errors import DataError, QuotaExceeded, UnexpectedMessage
from fednb.protocols import standard_errors as se
from fednb.protocols import vertical_linear, vertical_logistic, vertical_poisson
from fednb.protocols.base import FixedBudget, Outcome, RunContext

DATA = Path(os.environ.get("FEDNB_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROWS = 300
FITS = {"linear": vertical_linear, "poisson": vertical_poisson, "logistic": vertical_logistic}
MODELS: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda y, X: sm.OLS(y, X).fit(),
    "poisson": lambda y, X: sm.GLM(y, X, family=sm.families.Poisson()).fit(),
    "logistic": lambda y, X: sm.Logit(y, X).fit(disp=0),
}

Make = Callable[..., Any]


def joined(parts: list[np.ndarray]) -> np.ndarray:
    X = np.hstack(parts)
    return np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones(len(X))])


def made(kind: str, widths: tuple[int, ...], n: int = ROWS) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(1)
    common = rng.normal(size=(n, 1))  # so that blocks of their own would be far off
    parts = [1.2 * common + rng.normal(size=(n, d)) * rng.uniform(0.5, 3, d) + 1 for d in widths]
    score = joined(parts)[:, :-1] @ rng.uniform(-0.5, 0.5, sum(widths))
    if kind == "linear":
        return parts, 40 + 25 * score + rng.normal(size=n) * 9
    drawn = rng.poisson(0.8 * np.exp(score)) if kind == "poisson" else rng.random(n) < 1 / (1 + np.exp(-score))
    return parts, drawn.astype(float)


def fitted(training_on: Make, kind: str, parts: list[np.ndarray], y: np.ndarray, **params: Any) -> dict[str, Any]:
    options = {"max_iter": 20 if kind == "logistic" else 60, "tol": 1e-5 if kind == "logistic" else 1e-6, "clip": None}
    fit = training_on(parts, y, **options | params)
    fit.protocol = FITS[kind].PROTOCOL
    out: Mapping[str, Outcome] = fit.fit()
    return {member: out[member].private for member in fit.parties}


def asked(training_on: Make, kind: str, parts: list[np.ndarray], y: np.ndarray, model: Any, **params: Any) -> Any:
    t = training_on(parts, y, family=kind, **params)
    t.protocol, t.earlier = se.PROTOCOL, model
    return t


def errors(t: Any, out: Mapping[str, Outcome], scale: float = 1.0) -> np.ndarray:
    found = [out[member].private["std_err"] for member in t.parties]
    return scale * np.concatenate([*found, [out["bank"].private["intercept_std_err"]]])


@pytest.mark.parametrize(
    ("kind", "widths"),
    [("linear", (2, 3)), ("linear", (2, 1, 6)), ("linear", (0, 2, 2)), ("poisson", (0, 3)), ("poisson", (1, 1, 2))],
)
def test_they_are_statsmodels(training_on: Make, kind: str, widths: tuple[int, ...]) -> None:
    parts, y = made(kind, widths)
    options = {"alpha": 0.0} if kind == "poisson" else {}
    model = fitted(training_on, kind, parts, y, **options)
    t = asked(training_on, kind, parts, y, model)
    out = t.fit()
    reference = MODELS[kind](y, joined(parts))
    assert errors(t, out, model["bank"].get("label_scale", 1.0)) == pytest.approx(reference.bse, rel=1e-5)
    assert out["bank"].public["log_likelihood"] == pytest.approx(reference.llf, abs=1e-4)
    assert set(out["agency"].public) == {"rows"}, "a passive party's stay with it"


@pytest.mark.parametrize(("widths", "penalty"), [((2, 3), 1e-4), ((2, 1, 6), 25.0)])
def test_of_a_logistic_regression_they_are_those_of_its_own_point(
    training_on: Make, widths: tuple[int, ...], penalty: float
) -> None:
    parts, y = made("logistic", widths)
    model = fitted(training_on, "logistic", parts, y, C=1 / penalty)
    t = asked(training_on, "logistic", parts, y, model, penalty=penalty)
    found = errors(t, t.fit())
    X = joined(parts)
    w = np.concatenate([*(model[member]["coef"] for member in t.parties), [model["bank"]["intercept"]]])
    mean = 1 / (1 + np.exp(-X @ w))
    information = X.T * (mean * (1 - mean)) @ X + penalty * np.diag([*np.ones(len(w) - 1), 0.0])
    assert found == pytest.approx(np.sqrt(np.diag(np.linalg.inv(information))), rel=1e-6)
    if penalty < 1:
        assert found == pytest.approx(sm.Logit(y, X).fit(disp=0).bse, rel=5e-3)
        own = X[:, : widths[0]].T * (mean * (1 - mean)) @ X[:, : widths[0]]
        short = np.sqrt(np.diag(np.linalg.inv(own)))
        assert (found[: widths[0]] / short).max() > 1.2, "the party's own block understates them here"


def stepped(training_on: Make, kind: str, parts: list[np.ndarray], y: np.ndarray, model: Any, **params: Any) -> Any:
    """The parties' parts after a step, which are parts of a model again."""
    t = asked(training_on, kind, parts, y, model, step=True, **params)
    out = t.fit()
    return {member: out[member].private for member in t.parties}


@pytest.mark.parametrize(
    ("kind", "widths", "penalty"),
    [
        ("logistic", (2, 3), 1e-4),
        ("logistic", (2, 1, 2), 4.0),
        ("linear", (2, 1, 2), 0.0),
        ("linear", (2, 3), 30.0),
        ("poisson", (2, 3), 3.0),
    ],
)
def test_a_step_takes_a_fit_to_the_optimum(
    training_on: Make, kind: str, widths: tuple[int, ...], penalty: float
) -> None:
    parts, y = made(kind, widths)
    options: dict[str, dict[str, Any]] = {
        "logistic": {"C": 1 / penalty if penalty else 1.0, "max_iter": 14},
        "linear": {"alpha": penalty, "max_iter": 2},
        "poisson": {"alpha": penalty / ROWS, "max_iter": 8},
    }
    model = fitted(training_on, kind, parts, y, **options[kind])
    moved = stepped(training_on, kind, parts, y, model, penalty=penalty)
    again = stepped(training_on, kind, parts, y, moved, penalty=penalty)

    def slope(parts_of: Any) -> float:
        """The largest entry of the objective's gradient, on the joined table."""
        w = np.concatenate([*(parts_of[m]["coef"] for m in model), [parts_of["bank"]["intercept"]]])
        eta, label = joined(parts) @ w, (y - y.mean()) / y.std() if kind == "linear" else y
        mean = {"logistic": 1 / (1 + np.exp(-eta)), "linear": eta, "poisson": np.exp(eta)}[kind]
        return float(np.abs(joined(parts).T @ (label - mean) - penalty * np.r_[w[:-1], 0]).max())

    before, after, last = slope(model), slope(moved), slope(again)
    assert after < 0.1 * before and last < 1e-3 * before, (before, after, last)


@pytest.mark.skipif(not DATA.exists(), reason="needs FATE's example data")
@pytest.mark.parametrize(
    ("kind", "name"), [("logistic", "default_credit"), ("poisson", "dvisits"), ("linear", "motor")]
)
def test_on_real_data_they_are_statsmodels(training_on: Make, kind: str, name: str) -> None:
    guest, host = (
        pd.read_csv(DATA / f"{name}_hetero_{side}.csv", index_col=0).head(1500) for side in ("guest", "host")
    )
    assert guest.index.equals(host.index)
    y = guest.pop({"logistic": "y", "poisson": "doctorco", "linear": "motor_speed"}[kind]).to_numpy(dtype=float)
    if kind == "logistic":  # without the bills, which nearly depend on one another
        guest = guest.drop(columns=[f"x{j}" for j in range(1, 7)])
    parts = [guest.to_numpy(dtype=float), host.to_numpy(dtype=float)]
    options: dict[str, Any] = (
        {"C": 1e6, "max_iter": 12, "clip": 4.0} if kind == "logistic" else {"alpha": 0.0, "tol": 1e-5}
    )
    model = fitted(training_on, kind, parts, y, **options)
    if kind == "logistic":  # such a fit ends near the optimum, not at it
        model = stepped(training_on, kind, parts, y, model)
        model = stepped(training_on, kind, parts, y, model)
    t = asked(training_on, kind, parts, y, model)
    found = errors(t, t.fit(), model["bank"].get("label_scale", 1.0))
    X = np.hstack(parts)
    Z = np.clip((X - X.mean(axis=0)) / X.std(axis=0), *((-4, 4) if kind == "logistic" else (None, None)))
    Z = np.column_stack([Z - Z.mean(axis=0), np.ones(len(Z))])
    reference = MODELS[kind](y, Z)
    assert found == pytest.approx(reference.bse, rel=1e-3 if kind == "logistic" else 1e-4)
    w = np.concatenate([model[m]["coef"] for m in ("bank", "agency")]) * model["bank"].get("label_scale", 1.0)
    assert w == pytest.approx(reference.params[:-1], abs=1e-3 * y.std())


def test_an_exposure_counts(training_on: Make) -> None:
    parts, y = made("poisson", (2, 2))
    years = np.random.default_rng(9).uniform(0.2, 3.0, len(y))
    y = np.random.default_rng(8).poisson(y.mean() * years).astype(float)
    parts = [np.column_stack([parts[0], years]), parts[1]]
    model = fitted(training_on, "poisson", parts, y, alpha=0.0, exposure="bank_2")
    t = asked(training_on, "poisson", parts, y, model, exposure="bank_2")
    out = t.fit()
    X = joined([parts[0][:, :2], parts[1]])
    reference = sm.GLM(y, X, family=sm.families.Poisson(), exposure=years).fit()
    assert errors(t, out) == pytest.approx(reference.bse, rel=1e-5)
    assert out["bank"].public["log_likelihood"] == pytest.approx(reference.llf, abs=1e-4)


def test_messages_go_where_the_picture_says(training_on: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(se, "ROWS_AT_ONCE", 150)
    parts, y = made("linear", (2, 2, 2))
    t = asked(training_on, "linear", parts, y, fitted(training_on, "linear", parts, y, max_iter=4))
    t.fit()
    assert t.tape.kinds("bank", "agency") == ["Widths", "Dispersion", *["Weighted"] * 2]
    assert t.tape.kinds("bank", "telco") == ["Widths", "Dispersion", *["Weighted"] * 4]
    for passive in ("agency", "telco"):
        assert t.tape.kinds(passive, "bank") == ["Widths", "Partial", *["Features"] * 2]
        assert t.tape.kinds("coordinator", passive) == ["Key", "Ready", "Inverse"]
    assert t.tape.kinds("agency", "telco") == ["Seed"]
    assert t.tape.kinds("bank", "coordinator") == ["Shape", "OwnBlock", "Sums", "Sums", "Pull"]
    assert t.tape.kinds("telco", "coordinator") == ["Shape", "Sums", "Sums", "Pull"]
    numbers = [(s, m.numbers) for s, _, m in t.tape.messages if isinstance(m, se.Sums)]
    # each owner counts what is told of its features, whoever makes the sums
    assert sorted(numbers) == [("agency", 14), ("bank", 6), ("bank", 6), ("telco", 4), ("telco", 10)]


def test_the_coordinator_sees_no_moment_of_a_party_in_its_own_coordinates(training_on: Make) -> None:
    """Of a linear regression a party's whole block is the identity; what is left is how the parties go together."""
    parts, y = made("linear", (3, 3))
    model = fitted(training_on, "linear", parts, y, max_iter=4)
    seen = []
    for _ in range(2):
        t = asked(training_on, "linear", parts, y, model)
        t.fit()
        (own,) = [m.block for m in t.tape.to("coordinator") if isinstance(m, se.OwnBlock)]
        assert own == pytest.approx(ROWS * np.eye(4), abs=1e-6 * ROWS)
        (given,) = [m.block for m in t.tape.to("agency") if isinstance(m, se.Inverse)]
        seen.append(given)
    assert np.abs(seen[0] - seen[1]).max() > 0.01 * np.abs(seen[0]).max(), "another basis every time"
    assert np.linalg.eigvalsh(seen[0]) == pytest.approx(np.linalg.eigvalsh(seen[1]), rel=1e-6)


def test_what_is_decrypted_is_counted(training_on: Make) -> None:
    parts, y = made("linear", (2, 3))
    model = fitted(training_on, "linear", parts, y, max_iter=4)
    t, budget = asked(training_on, "linear", parts, y, model), FixedBudget(9)
    t.contexts = {"coordinator": RunContext(budget=budget)}
    t.fit()
    assert budget.spent == {"bank": 9, "agency": 9}
    t = asked(training_on, "linear", parts, y, model)
    t.contexts = {"coordinator": RunContext(budget=FixedBudget(8))}
    with pytest.raises(QuotaExceeded):
        t.fit()
    assert not t.tape.kinds("agency", "bank"), "refused before anything crossed"


def test_other_rows_than_those_of_the_fit_are_refused(training_on: Make) -> None:
    parts, y = made("linear", (2, 3))
    model = fitted(training_on, "linear", parts, y, max_iter=4)
    t = asked(training_on, "linear", [part[:-20] for part in parts], y[:-20], model)
    with pytest.raises(DataError, match="was fitted on other rows than these 280"):
        t.fit()


def test_features_that_depend_on_one_another_are_named(training_on: Make) -> None:
    parts, y = made("linear", (2, 3))
    twice = [parts[0], np.column_stack([parts[1], parts[1][:, 0] - 2 * parts[1][:, 2]])]
    model = fitted(training_on, "linear", twice, y, alpha=1.0, max_iter=4)
    with pytest.raises(DataError, match=r"agency's columns 'agency_0', 'agency_2', 'agency_3' depend on one another"):
        asked(training_on, "linear", twice, y, model).fit()
    assert asked(training_on, "linear", twice, y, model, penalty=1.0).fit(), "a penalty tells them apart"
    same = [parts[0], np.column_stack([parts[1], parts[0][:, 0]])]
    model = fitted(training_on, "linear", same, y, alpha=1.0, max_iter=4)
    with pytest.raises(DataError, match="of several parties together nearly depend on one another"):
        asked(training_on, "linear", same, y, model).fit()


def test_too_few_rows_for_so_many_coefficients_are_refused(training_on: Make) -> None:
    parts, y = made("linear", (3, 3), n=34)
    model = fitted(training_on, "linear", parts, y, max_iter=4)
    with pytest.raises(DataError, match="34 rows for 7 coefficients"):
        asked(training_on, "linear", parts, y, model).fit()


def nan(block: np.ndarray) -> np.ndarray:
    return np.full_like(block, np.nan)


@pytest.mark.parametrize(
    ("who", "alter", "blamed"),
    [
        ("bank", lambda m: se.OwnBlock(nan(m.block), m.gradient) if isinstance(m, se.OwnBlock) else m, "bank sent no"),
        ("bank", lambda m: se.Dispersion(-1.0) if isinstance(m, se.Dispersion) else m, "bank sent a variance"),
        ("bank", lambda m: se.Weighted(m.columns[:9]) if isinstance(m, se.Weighted) else m, "bank sent ciphertexts"),
        ("agency", lambda m: se.Features(m.columns[:9]) if isinstance(m, se.Features) else m, "agency sent ciphert"),
        ("agency", lambda m: se.Sums(m.sums[:1], 9) if isinstance(m, se.Sums) else m, "agency sent sums"),
        ("coordinator", lambda m: se.Inverse(-m.block, m.step) if isinstance(m, se.Inverse) else m, "none of an inv"),
        ("coordinator", lambda m: se.Inverse(nan(m.block), m.step) if isinstance(m, se.Inverse) else m, "no block of"),
        ("agency", lambda m: se.Pull(nan(m.pull)) if isinstance(m, se.Pull) else m, "agency sent no block"),
        ("coordinator", lambda m: se.Inverse(m.block, m.step[:1]) if isinstance(m, se.Inverse) else m, "no block of"),
        ("coordinator", lambda m: se.Ready({"bank": 3}) if isinstance(m, se.Ready) else m, "numbers of features"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_blamed_on_its_sender(training_on: Make, who: str, alter: Any, blamed: str) -> None:
    parts, y = made("linear", (2, 3), n=90)
    t = asked(training_on, "linear", parts, y, fitted(training_on, "linear", parts, y, max_iter=4))
    t.alter = {who: lambda to, message: alter(message)}
    with pytest.raises(UnexpectedMessage, match=blamed):
        t.fit()


@pytest.mark.parametrize(
    ("to", "whose", "width"), [("agency", "bank", -9), ("agency", "bank", 1), ("bank", "agency", 1)]
)
def test_a_coordinator_that_shrinks_what_others_have_is_refused(
    training_on: Make, to: str, whose: str, width: int
) -> None:
    """By these numbers a party counts what is decrypted; the others tell it theirs."""
    parts, y = made("linear", (2, 3), n=90)
    t = asked(training_on, "linear", parts, y, fitted(training_on, "linear", parts, y, max_iter=4))

    def alter(receiver: str, message: Any) -> Any:
        lies = receiver == to and isinstance(message, se.Ready)
        return se.Ready(message.features | {whose: width}) if lies else message

    t.alter = {"coordinator": alter}
    with pytest.raises(UnexpectedMessage, match=f"coordinator sent .* do not fit: {width} for {whose}, where 3"):
        t.fit()
    assert not [m for _, _, m in t.tape.messages if isinstance(m, se.Sums)]
