from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fednb.crypto import paillier
from fednb.crypto.noise import PublicNoise, draw_cost
from fednb.protocols import calibrate, four_steps, rows
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.forecast import KeyHolderRates, Rates, forecast
from fednb.wire.link import Link
from fednb.wire.loopback import play

CAST = {"party": ("bank", "agency"), "coordinator": ("coordinator",)}
RATES = Rates(
    expand=1e6, pack=1e6, encrypt=1e6, accept=1e5, fixed=0.01, multiply=1e6, together=1.0, hop=0.001, bytes=1e7
)
KEY_HOLDER = KeyHolderRates(decrypt=1000, prepare=0.1)


def measured(**params: Any) -> dict[str, Outcome]:
    chosen = calibrate.CalibrateParams(
        **{"rows": 300, "features": 3, "seconds": 0.05, "key_bits": 512, "insecure_short_key": True, **params}
    )

    def role(member: str) -> Callable[[Link], Outcome]:
        function = calibrate.coordinator if member == "coordinator" else calibrate.party
        return lambda link: function(link, Dataset(), chosen, RunContext())

    return play({member: role(member) for member in ("bank", "agency", "coordinator")}, CAST, timeout=60)


def test_every_member_says_rates_and_nothing_else() -> None:
    out = measured()
    for member in ("bank", "agency"):
        rates = msgspec.convert(out[member].public, Rates)
        assert min(rates.expand, rates.pack, rates.encrypt, rates.accept, rates.multiply, rates.bytes, rates.hop) > 0
        assert rates.fixed >= 0 and rates.together > 0
        assert not out[member].private
    assert msgspec.convert(out["coordinator"].public, KeyHolderRates).decrypt > 0


def test_a_fit_of_one_row_can_be_asked_about() -> None:
    msgspec.convert(measured(rows=1)["bank"].public, Rates)


@pytest.mark.parametrize(("widths", "least"), [((2, 3), 8192), ((2, 3, 4), 8192), ((2, 3), 60)])
def test_bytes_are_those_that_a_fit_sends(
    training: Callable[..., Any], widths: tuple[int, ...], least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "EACH_WAY", least)  # parts of the rows, where there are more
    fit = training(widths=widths, n=200, max_iter=5, tol=0.0)
    fit.fit()
    sent = 0
    for _, _, message in fit.tape.messages:
        if isinstance(message, four_steps.Scores | four_steps.Residuals):
            sent += message.terms.nbytes
        elif isinstance(message, four_steps.MaskedGradient):
            sent += message.gradient.nbytes
        elif isinstance(message, four_steps.Windows):
            sent += message.windows.nbytes

    features = dict(zip(("bank", "agency", "telco"), widths, strict=False))
    rates = dict.fromkeys(features, RATES)
    found = forecast(200, features, "bank", "coordinator", rates, KEY_HOLDER, expected=5, fine=3, key_bits=512)
    assert found.bytes == sent


def test_what_is_slower_or_more_takes_longer() -> None:
    def seconds(rows: int = 1000, **changes: float) -> float:
        rates = dict.fromkeys(("bank", "agency"), msgspec.structs.replace(RATES, **changes))
        features = {"bank": 5, "agency": 5}
        return forecast(rows, features, "bank", "coordinator", rates, KEY_HOLDER, expected=10, fine=5).seconds

    usual = seconds()
    assert seconds(rows=2000) > usual
    for rate in ("expand", "pack", "encrypt", "accept", "multiply", "bytes"):
        assert seconds(**{rate: getattr(RATES, rate) / 4}) > usual, rate
    assert seconds(hop=1.0) > usual + 10, "ten iterations of several messages, a second each"
    assert seconds(together=2.0) > usual, "two members on one machine"


def test_the_cost_of_encryptions_follows_the_tables_that_they_make() -> None:
    key = paillier.generate(256, insecure_short_key=True).public
    noise = PublicNoise(key.n, key.ring)
    counts: list[int] = []
    for count in (3, 20, 1, 200, 90):
        before = draw_cost(128, counts)
        had = noise._powers._table
        noise.draw(count)
        counts.append(count)
        table = noise._powers._table
        assert table is not None
        places = -(-128 // table.window)
        made = 0 if table is had else places << table.window
        assert draw_cost(128, counts) - before == count * places + made
