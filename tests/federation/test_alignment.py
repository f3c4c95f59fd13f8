"""Alignment as its user calls it: composite ids, what is refused, three parties, and sets prepared once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import ConfigError, DataError
from fednb.federation import spu_engine
from fednb.federation.tables import TableStore
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.wire.link import Link

TABLES = {
    "bank": {
        "loans": pd.DataFrame(
            {
                "country": ["AT", "AT", "BE", "BE", None],
                "number": [1, 12, 1, 3, 1],
                "vat": ["AT 1", "AT-12", "be1", "BE3", "x"],
                "amount": [1.0, 2.0, 3.0, 4.0, 5.0],
            }
        ),
        "applicants": pd.DataFrame({"vat": ["be-2", "zz9"], "age": [30.0, 40.0]}),
    },
    "agency": {
        "invoices": pd.DataFrame(
            {
                "land": ["be", "at", "A", "be"],
                "no": ["1", "12", "T1", "2"],
                "vat": ["BE 1", "AT 12", "AT 1", "BE 2"],
                "turnover": [10.0, 20.0, 30.0, 40.0],
            }
        ),
        "payments": pd.DataFrame({"vat": ["BE1", "be 1", "AT1"], "paid": [1.0, 2.0, 3.0]}),
    },
    "telco": {"lines": pd.DataFrame({"vat": ["at12", "be2", "be3", "at1"], "calls": [7.0, 8.0, 9.0, 6.0]})},
}
BOTH = {"bank": "loans", "agency": "invoices"}


@pytest.fixture
def federation() -> Iterator[fednb.Federation]:
    with fednb.simulate(TABLES) as federation:
        yield federation


def test_a_composite_id_joins_on_all_its_columns(federation: fednb.Federation) -> None:
    frame = federation.align(BOTH, on={"bank": ["country", "number"], "agency": ["land", "no"]})
    assert len(frame) == 2  # (be, 1) and (at, 12); ("A", "T1") is not ("AT", "1"), and no country is no id
    assert frame.columns == {"bank": ("vat", "amount"), "agency": ("vat", "turnover")}
    assert frame.alignment is not None
    assert {p.member: (p.on, p.rows, p.ids, p.missing) for p in frame.alignment.parties} == {
        "bank": (["country", "number"], 5, 4, 1),
        "agency": (["land", "no"], 4, 4, 0),
    }


def test_columns_of_a_composite_id_keep_their_order(federation: fednb.Federation) -> None:
    with pytest.raises(DataError, match="no id is common"):
        federation.align(BOTH, on={"bank": ["number", "country"], "agency": ["land", "no"]})


def test_a_one_to_many_join_is_refused_with_its_reason_and_a_remedy(federation: fednb.Federation) -> None:
    with pytest.raises(DataError) as caught:
        federation.align({"bank": "loans", "agency": "payments"}, on="vat")
    said = str(caught.value)
    assert "agency has 1 rows whose id stands in an earlier row too" in said
    assert "one-to-many joins are refused" in said and "by aggregation" in said and "BE1" not in said


def test_three_parties_share_what_all_of_them_have(federation: fednb.Federation) -> None:
    frame = federation.align({**BOTH, "telco": "lines"}, on="vat")
    assert len(frame) == 2 and frame.alignment is not None  # AT1 and AT12
    assert {p.member: p.ids for p in frame.alignment.parties} == {"bank": 5, "agency": 4, "telco": 4}


def test_a_set_prepared_once_is_aligned_with_again_and_again(federation: fednb.Federation) -> None:
    register = federation.prepare({"agency": "invoices"}, for_party="bank", on="vat", days=2)
    assert str(register).startswith("4 ids of agency.invoices, prepared for bank until ")
    plain = federation.align(BOTH, on="vat")
    frame = federation.align(BOTH, on="vat", prepared=register)
    assert frame.shape == plain.shape and frame.columns == plain.columns
    assert frame.alignment is not None and plain.alignment is not None
    assert [(p.member, p.rows, p.ids, p.formats) for p in frame.alignment.parties] == [
        (p.member, p.rows, p.ids, p.formats) for p in plain.alignment.parties
    ]
    assert len(federation.align({"bank": "applicants", "agency": "invoices"}, on="vat", prepared=register)) == 1


def test_rows_of_a_prepared_alignment_belong_together() -> None:
    def show(link: Link, data: Dataset, params: Params, run: RunContext) -> Outcome:
        """A protocol of the worst kind: it shows its columns, so that the test can compare them."""
        assert data.X is not None
        return Outcome(public={"X": data.X[:, 0]})

    look = Protocol("look", 1, Params, {"party": Role(show, many=True, needs=("X",))}, {})
    ids = [f"{i:03d}" for i in range(400)]
    agency = pd.DataFrame({"id": ids, "b": np.arange(400.0)}).sample(frac=1, random_state=1)
    bank = pd.DataFrame({"id": ids, "a": np.arange(400.0)}).sample(50, random_state=2)
    with fednb.simulate({"bank": {"loans": bank}, "agency": {"register": agency}}, protocols=[look]) as federation:
        register = federation.prepare({"agency": "register"}, for_party="bank", on="id")
        frame = federation.align({"bank": "loans", "agency": "register"}, on="id", prepared=register)
        shown = federation.run("look", cast={"party": ["bank", "agency"]}, data=frame.refs())
    assert np.array_equal(shown.public("bank")["X"], np.sort(bank["a"]))
    assert np.array_equal(shown.public("agency")["X"], np.sort(bank["a"]))


@pytest.mark.parametrize(
    ("tables", "on"),
    [
        ({"bank": "loans", "telco": "lines"}, "vat"),
        ({"bank": "loans", "agency": "payments"}, "vat"),
        ({**BOTH, "telco": "lines"}, "vat"),
        (BOTH, {"bank": "vat", "agency": "no"}),
    ],
)
def test_a_prepared_set_serves_what_it_was_prepared_for(
    federation: fednb.Federation, tables: dict[str, str], on: Any
) -> None:
    register = federation.prepare({"agency": "invoices"}, for_party="bank", on="vat")
    with pytest.raises(DataError, match=r"prepared is agency\.invoices on vat for bank"):
        federation.align(tables, on=on, prepared=register)


def test_a_changed_table_must_be_prepared_again(federation: fednb.Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    register = federation.prepare({"agency": "invoices"}, for_party="bank", on="vat")
    monkeypatch.setattr(TableStore, "digest", lambda self, name: "another")
    with pytest.raises(DataError, match="'invoices' of agency has changed since it was prepared"):
        federation.align(BOTH, on="vat", prepared=register)


def test_what_cannot_be_prepared_is_explained(federation: fednb.Federation) -> None:
    with pytest.raises(DataError, match="agency has 1 rows .* one-to-many"):
        federation.prepare({"agency": "payments"}, for_party="bank", on="vat")
    with pytest.raises(DataError, match="one party's table"):
        federation.prepare({"agency": "invoices"}, for_party="agency", on="vat")
    with pytest.raises(DataError, match="does not take these parameters"):
        federation.prepare({"agency": "invoices"}, for_party="bank", on="vat", days=4000)


@pytest.mark.parametrize(
    ("ids", "matched"),
    [
        (["1", "2", "3"], 3),
        ([1.0, 2.0, None], 2),
        (pd.array([1, 2, None], dtype="Int64"), 2),
        (pd.Categorical(["3", "2", "9"]), 2),
        ([b"1", b"2", b"3"], 0),
        (pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"]), 0),
        ([True, False, None], 0),
    ],
    ids=["text", "float", "nullable", "category", "bytes", "dates", "truth"],
)
def test_ids_of_another_type_at_the_other_party_match_by_what_they_say_or_that_is_explained(
    ids: object, matched: int
) -> None:
    tables = {
        "bank": {"t": pd.DataFrame({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]})},
        "agency": {"t": pd.DataFrame({"id": ids, "x": [1.0, 2.0, 3.0]})},
    }
    with fednb.simulate(tables) as federation:
        if matched:
            assert len(federation.align({"bank": "t", "agency": "t"}, on="id")) == matched
        else:
            with pytest.raises(DataError, match="no id is common.* bank writes ids as .* agency writes ids as"):
                federation.align({"bank": "t", "agency": "t"}, on="id")


def test_a_method_does_what_it_can(federation: fednb.Federation) -> None:
    with pytest.raises(DataError, match="no method 'rsa' to align by; there are 'ecdh', 'spu'"):
        federation.align(BOTH, on="vat", method="rsa")
    with pytest.raises(DataError, match="'spu' intersects two parties' sets, neither of them prepared; use method='ec"):
        federation.align({**BOTH, "telco": "lines"}, on="vat", method="spu")
    large = federation.prepare({"agency": "invoices"}, for_party="bank", on="vat")
    with pytest.raises(DataError, match="neither of them prepared"):
        federation.align(BOTH, on="vat", prepared=large, method="spu")
    assert federation.align(BOTH, on="vat", method="ecdh").shape == federation.align(BOTH, on="vat").shape


@pytest.mark.parametrize("lacks", ["spu", "bubblewrap"])
def test_a_party_that_cannot_run_spu_says_what_it_lacks(
    federation: fednb.Federation, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    monkeypatch.setattr(spu_engine, "installed", lambda: lacks != "spu")
    monkeypatch.setattr(spu_engine, "missing", lambda backend: "it is not installed." if lacks == "bubblewrap" else "")
    said = {"spu": "no spu", "bubblewrap": "no bubblewrap that works"}
    with pytest.raises(ConfigError, match=f"cannot align by spu: .*{said[lacks]}.*method='ecdh'"):
        federation.align(BOTH, on="vat", method="spu")
