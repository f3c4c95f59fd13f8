"""Linear and Poisson regression by their real roles: the model, what crossed, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, PoissonRegressor, Ridge

from fednb.crypto.paillier import CipherVector
from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import chain, vertical_linear, vertical_poisson
from fednb.protocols import four_steps as fs
from fednb.protocols.base import Journal, Outcome, RunContext
from fednb.protocols.mixing import MEMORY, Mixing, Remembering

DATA = Path(os.environ.get("FEDNB_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROWS = 200

Make = Callable[..., Any]


def scaled(parts: list[np.ndarray]) -> np.ndarray:
    X = np.hstack(parts)
    return np.asarray((X - X.mean(axis=0)) / X.std(axis=0))


def made(kind: str, widths: tuple[int, ...], n: int = ROWS, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    parts = [0.7 * common + rng.normal(size=(n, d)) * 3 + 1 for d in widths]
    score = scaled(parts) @ rng.uniform(-0.5, 0.5, sum(widths))
    y = 40 + 25 * score + rng.normal(size=n) * 9 if kind == "linear" else rng.poisson(0.8 * np.exp(score)).astype(float)
    return parts, y


def fit(training_on: Make, kind: str, parts: list[np.ndarray], y: np.ndarray, **params: Any) -> Any:
    t = training_on(parts, y, clip=None, **{"max_iter": 40, "tol": 1e-7, **params})
    t.protocol = {"linear": vertical_linear, "poisson": vertical_poisson}[kind].PROTOCOL
    return t


def coefficients(t: Any, out: Mapping[str, Outcome]) -> np.ndarray:
    scale = out["bank"].private.get("label_scale", 1.0)
    return np.concatenate([out[member].private["coef"] for member in t.parties]) * scale


@pytest.mark.parametrize("widths", [(2, 3), (1, 2, 2)])
@pytest.mark.parametrize("alpha", [0.0, 30.0])
def test_linear_coefficients_are_scikit_learns(training_on: Make, widths: tuple[int, ...], alpha: float) -> None:
    parts, y = made("linear", widths)
    t = fit(training_on, "linear", parts, y, alpha=alpha)
    out = t.fit()
    reference = Ridge(alpha=alpha).fit(scaled(parts), y)
    assert coefficients(t, out) == pytest.approx(reference.coef_, abs=1e-3 * y.std())
    bank = out["bank"].private
    assert bank["label_centre"] + bank["label_scale"] * bank["intercept"] == pytest.approx(reference.intercept_)


@pytest.mark.parametrize(
    ("widths", "alpha"), [((2, 3), 0.0), ((2, 3), 0.5), ((2, 2, 1), 0.0), ((0, 2, 2), 0.5), ((1, 1, 2, 1), 0.1)]
)
def test_poisson_coefficients_are_scikit_learns(training_on: Make, widths: tuple[int, ...], alpha: float) -> None:
    parts, y = made("poisson", widths)
    t = fit(training_on, "poisson", parts, y, alpha=alpha, tol=1e-6)
    out = t.fit()
    reference = PoissonRegressor(alpha=alpha, tol=1e-10, max_iter=5000).fit(scaled(parts), y)
    assert coefficients(t, out) == pytest.approx(reference.coef_, abs=1e-3)
    assert out["bank"].private["intercept"] == pytest.approx(reference.intercept_, abs=1e-3)


@pytest.mark.parametrize("widths", [(2, 2), (2, 1, 1)])
def test_an_exposure_counts_as_scikit_learns_weights_do(training_on: Make, widths: tuple[int, ...]) -> None:
    parts, y = made("poisson", widths)
    years = np.random.default_rng(9).uniform(0.2, 3.0, len(y))
    y = np.random.default_rng(8).poisson(y.mean() * years * np.exp(0.3 * scaled(parts)[:, 3])).astype(float)
    t = fit(training_on, "poisson", [np.column_stack([parts[0], years]), *parts[1:]], y, alpha=0.0, exposure="bank_2")
    out = t.fit()
    assert out["bank"].private["columns"] == ["bank_0", "bank_1"]
    reference = PoissonRegressor(alpha=0.0, tol=1e-10, max_iter=5000).fit(scaled(parts), y / years, sample_weight=years)
    assert coefficients(t, out) == pytest.approx(reference.coef_, abs=1e-3)


def test_the_units_of_the_label_do_not_reach_a_passive_party(training_on: Make) -> None:
    parts, y = made("linear", (2, 2))
    small, large = (fit(training_on, "linear", parts, unit * y) for unit in (1.0, 1e6))
    a, b = small.fit()["agency"], large.fit()["agency"]
    assert a.private["coef"] == pytest.approx(b.private["coef"], abs=1e-9)
    assert set(a.public) == {"n_iter", "features"}


def test_messages_go_where_the_picture_says(training_on: Make) -> None:
    for kind, once in (("linear", []), ("poisson", ["Level"])):
        parts, y = made(kind, (2, 2))
        t = fit(training_on, kind, parts, y, max_iter=3, tol=0.0)
        t.fit()
        assert t.tape.kinds("bank", "agency") == [*once, *["Residuals"] * 3]
        assert t.tape.kinds("agency", "bank") == ["Scores"] * 3
        for member in t.parties:
            assert t.tape.kinds(member, "coordinator") == ["Shape", *["MaskedGradient", "Norm", "Products"] * 3]
            assert t.tape.kinds("coordinator", member) == ["Key", "Ready", *["Windows", "Next", "Mix"] * 3]


def test_a_product_goes_along_chains(training_on: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "ROWS_AT_ONCE", ROWS // 2)
    parts, y = made("poisson", (1, 1, 1))
    t = fit(training_on, "poisson", parts, y, max_iter=3, tol=0.0)
    t.fit()
    twice = 2 * 3
    assert t.tape.kinds("agency", "telco") == ["Product"] * twice and not t.tape.kinds("telco", "agency")
    assert t.tape.kinds("agency", "bank") == ["Product"] * twice, "its own factor, for telco"
    assert t.tape.kinds("telco", "bank") == ["Product", "Product"] * twice, "its own, and that of both"
    for passive in ("agency", "telco"):
        assert sorted(t.tape.kinds("bank", passive)) == [*["Labels"] * 2, "Level", *["Rates"] * twice]
        assert t.tape.kinds(passive, "coordinator") == ["Shape", *["MaskedGradient", "Norm", "Products"] * 3]


def test_no_ciphertext_of_a_chain_is_seen_twice(training_on: Make) -> None:
    """What one party multiplied is randomised anew: else whoever knows both ends could try factors."""
    parts, y = made("poisson", (1, 1, 1), n=60)
    t = fit(training_on, "poisson", parts, y, max_iter=1)
    t.fit()
    product = {}
    for sender, receiver, message in t.tape.messages:
        if isinstance(message, chain.Product):
            product.setdefault((sender, receiver), []).append(message.factors.data)
    key = next(m for m in t.tape.to("bank") if isinstance(m, chain.Product)).factors.key
    (first,) = product["agency", "telco"]
    own = [1 << chain.FRACTION] * 60  # at the start every factor is 1
    unrefreshed = key.multiply_plain(CipherVector(first, 0, key), own).data
    assert not any((unrefreshed == sent).all(axis=1).any() for sent in product["telco", "bank"])


def test_of_the_label_a_passive_party_hears_a_power_of_two(training_on: Make) -> None:
    parts, y = made("poisson", (2, 2))
    t = fit(training_on, "poisson", parts, y, max_iter=1)
    t.fit()
    (level,) = [m for m in t.tape.to("agency") if isinstance(m, fs.Level)]
    assert level.exponent == round(float(np.log2(y.mean())))


@pytest.mark.parametrize("kind", ["linear", "poisson"])
def test_secrets_do_not_change_the_result(training_on: Make, kind: str) -> None:
    parts, y = made(kind, (2, 2), n=90)
    first, second = (fit(training_on, kind, parts, y, max_iter=4).fit() for _ in range(2))
    assert first["agency"].private["coef"].tobytes() == second["agency"].private["coef"].tobytes()


class Kept(Journal):
    def __init__(self, stop: int) -> None:
        self.saved: dict[int, Any] = {}
        self.stop, self.resumed = stop, False

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        self.saved[step] = state
        if step == self.stop and not self.resumed:
            raise DataError("the power fails")

    def load(self) -> tuple[int, Mapping[str, Any]] | None:
        return (2, self.saved[2]) if self.resumed else None


@pytest.mark.parametrize(("kind", "widths"), [("linear", (2, 2)), ("poisson", (2, 2)), ("poisson", (1, 1, 1))])
def test_a_run_that_was_cut_off_ends_at_the_same_model(training_on: Make, kind: str, widths: tuple[int, ...]) -> None:
    parts, y = made(kind, widths, n=90)
    whole = fit(training_on, kind, parts, y, max_iter=6, tol=0.0).fit()
    journals = {member: Kept(3) for member in ("bank", "agency", "telco", "coordinator")}
    t = fit(training_on, kind, parts, y, max_iter=6, tol=0.0)
    t.contexts = {member: RunContext(journal=journal) for member, journal in journals.items()}
    with pytest.raises(DataError, match="power fails"):
        t.fit()
    for journal in journals.values():
        journal.resumed = True
    found, expected = (o["agency"].private["coef"] for o in (t.fit(), whole))
    if len(widths) == 2:
        assert found.tobytes() == expected.tobytes()
    assert found == pytest.approx(expected, abs=1e-6)  # three round anew; a lost iteration shows at 5e-5


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        ("linear", np.full(ROWS, 3.0), "is the same in all rows"),
        ("linear", np.where(np.arange(ROWS) == 3, np.nan, np.arange(ROWS)), "'default' is missing in 1 rows"),
        ("linear", np.where(np.arange(ROWS) == 3, np.inf, np.arange(ROWS)), "'default' is infinite in 1 rows"),
        ("poisson", np.arange(ROWS) - 1.0, "must count something"),
        ("poisson", np.zeros(ROWS), "must count something"),
        ("poisson", np.arange(ROWS) * 10.0, "1024 or more in some rows"),
    ],
)
def test_labels_that_cannot_be_learnt_are_explained(training_on: Make, kind: str, y: np.ndarray, message: str) -> None:
    parts, _ = made(kind, (2, 2))
    with pytest.raises(DataError, match=message):
        fit(training_on, kind, parts, y, max_iter=2).fit()


def test_poisson_says_how_many_passive_parties_it_takes(training_on: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertical_poisson.Poisson, "most_passives", 1)
    parts, y = made("poisson", (1, 1, 1))
    with pytest.raises(DataError, match="takes at most 3 passive parties"):
        fit(training_on, "poisson", parts, y).fit()


@pytest.mark.parametrize("exposure", ["nothing", "bank_0"])
def test_an_exposure_must_be_a_column_above_zero(training_on: Make, exposure: str) -> None:
    parts, y = made("poisson", (2, 2))
    with pytest.raises(DataError, match="for the exposure|must be above 0 in every row"):
        fit(training_on, "poisson", parts, y, exposure=exposure).fit()


@pytest.mark.parametrize(
    ("who", "alter", "blamed"),
    [
        ("agency", lambda m: fs.Products(np.full(1, np.nan)) if isinstance(m, fs.Products) else m, "agency sent prod"),
        ("agency", lambda m: fs.Products(np.ones(9)) if isinstance(m, fs.Products) else m, "agency sent products"),
        ("coordinator", lambda m: fs.Mix(np.ones(5), 1.0) if isinstance(m, fs.Mix) else m, "sent 5 weights"),
        ("coordinator", lambda m: fs.Mix(m.weights, 50.0) if isinstance(m, fs.Mix) else m, "sent 1 weights"),
        ("bank", lambda m: fs.Level(900) if isinstance(m, fs.Level) else m, "bank sent a level"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_blamed_on_its_sender(training_on: Make, who: str, alter: Any, blamed: str) -> None:
    parts, y = made("poisson", (2, 2), n=90)
    t = fit(training_on, "poisson", parts, y, max_iter=2)
    t.alter = {who: lambda to, message: alter(message)}
    with pytest.raises(UnexpectedMessage, match=blamed):
        t.fit()


@pytest.mark.parametrize(
    ("who", "kind", "blamed"),
    [("agency", chain.Product, "agency"), ("telco", chain.Product, "telco"), ("bank", chain.Rates, "bank")],
)
def test_a_link_of_a_chain_that_does_not_fit_is_blamed_on_its_sender(
    training_on: Make, who: str, kind: Any, blamed: str
) -> None:
    parts, y = made("poisson", (1, 1, 1), n=60)
    t = fit(training_on, "poisson", parts, y, max_iter=1)

    def short(to: str, message: Any) -> Any:
        if not isinstance(message, kind):
            return message
        (name,) = kind.__struct_fields__
        return kind(**{name: getattr(message, name)[:5]})

    t.alter = {who: short}
    with pytest.raises(UnexpectedMessage, match=f"{blamed} sent ciphertexts that cannot be used: 60 ciphertexts"):
        t.fit()


def test_mixing_takes_back_a_step_that_made_things_worse() -> None:
    mixing = Mixing(2)
    weights, damping = mixing.after(1.0, {"a": np.array([4.0])})
    assert weights.tolist() == [1.0] and damping == 0.5
    weights, damping = mixing.after(50.0, {"a": np.array([1.0, 9.0])})
    assert weights.tolist() == [1.0, 0.0] and damping == 0.25, "back to the first point, with half the step"


def test_a_mixed_quadratic_is_solved_in_as_many_steps_as_it_has_directions() -> None:
    rng = np.random.default_rng(1)
    blocks = [rng.normal(size=(80, 3)) for _ in range(2)]
    blocks[1][:, 0] = blocks[0][:, 0] + 0.05 * rng.normal(size=80)  # nearly the same column twice
    X, y = np.hstack(blocks), rng.normal(size=80)
    parties = [Remembering(block, np.zeros(3)) for block in blocks]
    mixing = Mixing(2)
    for _ in range(8):
        residual = sum(party.X @ party.at() for party in parties) - y
        said = [party.step(party.X.T @ residual) for party in parties]
        weights, damping = mixing.after(max(norm for norm, _ in said), {str(i): p for i, (_, p) in enumerate(said)})
        for party in parties:
            party.heed(0.0, weights, damping)
    expected = np.linalg.lstsq(X, y, rcond=None)[0]
    assert np.concatenate([party.w for party in parties]) == pytest.approx(expected, abs=1e-6)
    assert all(len(party._points) <= MEMORY for party in parties)


# ---------------------------------------------------------------- real data


def halves(name: str, key: str, label: str) -> tuple[list[np.ndarray], np.ndarray]:
    files = [DATA / f"{name}_hetero_{side}.csv" for side in ("guest", "host")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"{name} is not in {DATA}")
    guest, host = (pd.read_csv(file).set_index(key) for file in files)
    host = host.loc[guest.index]
    own, other = guest.drop(columns=label).to_numpy(float), host.to_numpy(float)
    return [own, other], guest[label].to_numpy(float)


@pytest.mark.slow
@pytest.mark.parametrize("passives", [1, 2])
def test_motor_is_fitted_as_by_scikit_learn(training_on: Make, passives: int) -> None:
    parts, y = halves("motor", "idx", "motor_speed")
    parts = parts if passives == 1 else [parts[0], parts[1][:, :4], parts[1][:, 4:]]
    t = fit(training_on, "linear", parts, y, tol=1e-5, max_iter=30)
    out = t.fit()
    reference = LinearRegression().fit(scaled(parts), y)
    assert np.abs(coefficients(t, out) - reference.coef_).max() < 1e-3
    assert out["bank"].public["converged"]


@pytest.mark.slow
@pytest.mark.parametrize("parties", [2, 3])
def test_dvisits_are_fitted_as_by_scikit_learn(training_on: Make, parties: int) -> None:
    parts, y = halves("dvisits", "id", "doctorco")
    if parties == 3:
        parts = [parts[0], parts[1][:, :4], parts[1][:, 4:]]
    t = fit(training_on, "poisson", parts, y, tol=1e-5, alpha=0.0)
    out = t.fit()
    reference = PoissonRegressor(alpha=0.0, tol=1e-10, max_iter=5000).fit(scaled(parts), y)
    assert np.abs(coefficients(t, out) - reference.coef_).max() < 1e-3
    assert out["bank"].private["intercept"] == pytest.approx(reference.intercept_, abs=1e-3)


def test_rates_beyond_the_range_of_the_numbers_are_an_error_and_no_wrong_model(training_on: Make) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(ROWS, 1))
    x[:3] = 9.0  # not winsorised
    y = rng.poisson(0.3 * np.exp(0.9 * x[:, 0])).astype(float)
    y[:3] = 900.0  # three thousand times the usual rate
    t = fit(training_on, "poisson", [rng.normal(size=(ROWS, 1)), x], y, alpha=0.0, max_iter=25)
    with pytest.raises(DataError, match="agency's features make the rate of some rows|training diverges"):
        t.fit()


@pytest.mark.parametrize("widths", [(2, 3), (2, 2, 1)])
def test_a_step_that_goes_too_far_on_the_way_is_taken_back(training_on: Make, widths: tuple[int, ...]) -> None:
    parts, y = made("poisson", widths)
    y = y * 40  # far from the start: the mean is large, and steps are long
    t = fit(training_on, "poisson", parts, y, alpha=0.0, tol=1e-5, max_iter=60)
    out = t.fit()
    reference = PoissonRegressor(alpha=0.0, tol=1e-10, max_iter=5000).fit(scaled(parts), y)
    assert coefficients(t, out) == pytest.approx(reference.coef_, abs=2e-3)
