"""`fed` in a party's cells, over loopback instead of a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fednb.config import TableConfig
from fednb.errors import DataError, Refused
from fednb.federation import messages as m
from fednb.federation.cells import captured_value
from fednb.federation.desk import Desk
from fednb.federation.kernel_side import PartyFed, portable
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.policy.mode import MemberPolicy
from fednb.wire.loopback import Network


@dataclass
class Party:
    fed: PartyFed
    tables: TableStore
    policy: MemberPolicy
    store: MemberStore
    locked: list[bool]


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Party]:
    (tmp_path / "loans.csv").write_text("sme_id,income,default\n007,10,0\n08,,1\n")
    loans = TableConfig("loans", tmp_path / "loans.csv", id=("sme_id",), label="default")
    network = Network({"bank": "party", "kernel": "analyst"})
    tables = TableStore("bank", {"loans": loans}, tmp_path / "tables")
    policy, store, locked = MemberPolicy("bank", "open"), MemberStore(), list[bool]()
    agent, kernel = network.endpoint("bank"), network.endpoint("kernel")
    Desk(tables, policy, store, lambda: locked.append(True)).attach(agent, "analyst")
    yield Party(PartyFed(kernel, "bank"), tables, policy, store, locked)
    kernel.close()
    agent.close()


def test_a_cell_loads_changes_and_saves_a_table(bank: Party) -> None:
    loans = bank.fed.load("loans")
    assert loans["sme_id"].tolist() == ["007", "08"]
    loans["income"] = loans["income"].fillna(5.0)
    bank.fed.save("clean", loans)
    assert bank.tables.table("clean").id == ("sme_id",) and bank.tables.table("clean").label == "default"
    assert bank.tables.features("clean")[0][:, 0].tolist() == [10, 5]
    assert bank.fed.tables()[["table", "rows", "columns", "id", "label"]].to_dict("list") == {
        "table": ["loans", "clean"],
        "rows": [2, 2],
        "columns": [3, 3],
        "id": ["sme_id", "sme_id"],
        "label": ["default", "default"],
    }


def test_id_and_label_are_found_again_after_a_merge(bank: Party) -> None:
    loans = bank.fed.load("loans")
    merged = loans.merge(pd.DataFrame({"sme_id": ["007", "08"], "extra": [1, 2]}), on="sme_id")
    merged.attrs = {}
    bank.fed.save("merged", merged)
    assert bank.tables.table("merged").id == ("sme_id",)
    bank.fed.save("unlabelled", merged.drop(columns="default"))
    assert bank.tables.table("unlabelled").label is None
    bank.fed.save("by_index", merged.set_index("sme_id"))
    assert list(bank.tables.ids("by_index")) == ["007", "08"]


def test_a_table_of_unknown_origin_needs_its_id_named(bank: Party) -> None:
    own = pd.DataFrame({"key": ["1", "2"], "x": [1.0, 2.0]})
    with pytest.raises(DataError, match="which column identifies a row"):
        bank.fed.save("own", own)
    bank.fed.save("own", own, id="key", label="x")
    assert bank.tables.table("own").id == ("key",) and bank.tables.table("own").label == "x"


def test_what_the_agent_refuses_is_raised_in_the_cell(bank: Party) -> None:
    with pytest.raises(DataError, match="no table 'lones'.*mean 'loans'"):
        bank.fed.load("lones")
    with pytest.raises(DataError, match="declares a table 'loans'"):
        bank.fed.save("loans", bank.fed.load("loans"))
    with pytest.raises(DataError, match="takes a DataFrame, not a list"):
        bank.fed.save("x", [1])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="mixed or unknown types"):
        bank.fed.save("x", pd.DataFrame({"sme_id": ["a", "b"], "x": ["a", 1]}), id="sme_id")


def test_a_lock_closes_the_tables_to_the_kernel_at_once(bank: Party, capsys: pytest.CaptureFixture[str]) -> None:
    bank.fed.load("loans")
    bank.fed.lock()
    assert bank.locked == [True] and bank.policy.mode == "protocol-only"
    assert "protocol-only from here on" in capsys.readouterr().out
    with pytest.raises(Refused, match=r"locked by fed\.lock"):
        bank.fed.load("loans")


def test_a_party_reads_its_own_coefficients(bank: Party) -> None:
    bank.store.save("run1", {"coef": np.array([0.5, -1.0]), "columns": ["income", "age"], "index": np.arange(3)})
    assert bank.fed.coefficients("run1").to_dict() == {"income": 0.5, "age": -1.0}
    bank.store.save("run2", {"index": np.arange(3)})
    with pytest.raises(DataError, match="no coefficients of run run2"):
        bank.fed.coefficients("run2")
    with pytest.raises(DataError, match="no part of run"):
        bank.fed.coefficients("run3")


def test_a_stream_that_is_no_table_is_refused(bank: Party) -> None:
    with pytest.raises(DataError, match="not a sound table"):
        bank.fed._ask(m.SaveTable("x", np.zeros(64, dtype=np.uint8), ["a"]), m.Ok)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, "text", b"bytes", [1, [2, "x"]], {"a": {"b": 1}}, (1, 2), np.float64(2.5), {"n": np.int8(3)}],
)
def test_plain_values_travel_as_they_are(value: object) -> None:
    sent = portable(value, "x")
    assert isinstance(sent, m.PlainValue)
    assert captured_value(sent) == (list(value) if isinstance(value, tuple) else value)


def test_arrays_and_tables_travel_with_their_index() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(captured_value(portable(array, "x")), array)
    frame = pd.DataFrame({"a": [1, 2], "t": ["x", None]}, index=pd.Index(["p", "q"], name="k"))
    frame.attrs["fednb"] = {"id": ["a"]}
    back = captured_value(portable(frame, "x"))
    pd.testing.assert_frame_equal(back, frame)
    assert back.attrs == {}
    series = frame["a"]
    pd.testing.assert_series_equal(captured_value(portable(series, "x")), series)


def test_what_cannot_travel_says_what_can() -> None:
    with pytest.raises(TypeError, match="-o model: a object cannot come back; numbers, text"):
        portable(object(), "model")
