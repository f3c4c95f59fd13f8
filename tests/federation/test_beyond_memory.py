"""Tables that are not read whole: the same numbers from Parquet, queries and large CSV files; what is left on disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from fednb.config import TableConfig
from fednb.errors import DataError
from fednb.federation import columns, staging, tables
from fednb.federation.spill import FileMatrix
from fednb.federation.tables import TableStore

CSV = """sme_id,region,income,ratio,good,when,code,default
007,north,10,0.5,true,2020-01-01,0,0
08,"so, uth",20,,false,2020-01-02,NA,1
NA,"x
y",-3,1e3,true,NULL,1.5,0
11,,40,2,true,,2,1
"""


def frame(rows: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.normal(size=(rows, 3)), columns=list("abc"))
    made["whole"] = pd.array([None if i % 7 == 0 else i for i in range(rows)], dtype="Int64")
    return made.assign(k=[f"S{i:04d}" for i in range(rows)], n=range(rows), flag=made["a"] > 0)


def stored(tmp_path: Path, **about: Any) -> TableStore:
    return TableStore("bank", {"t": TableConfig("t", **about)}, tmp_path / "home")


def in_duckdb(tmp_path: Path, made: pd.DataFrame) -> dict[str, Any]:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        connection.register("made", made)
        connection.execute("CREATE TABLE t AS SELECT *, CAST(a AS DECIMAL(9, 3)) AS exact FROM made")
    return {"source": f"duckdb:///{tmp_path}/x.duckdb", "query": "SELECT * FROM t ORDER BY n"}


# ---------------------------------------------------------------- a matrix in a file


def test_a_matrix_in_a_file_gives_columns_and_neighbouring_rows(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3))
    kept = FileMatrix(tmp_path, X.shape)
    for j in range(3):
        kept[:, j] = X[:, j]
    assert kept.shape == (50, 3)
    for rows in (slice(0, 50), slice(7, 20), slice(49, 50), slice(5, 5), slice(40, None)):
        assert np.array_equal(kept[rows], X[rows])
    assert np.array_equal(kept[:, 2], X[:, 2])
    for which in (slice(0, 50, 2), (slice(0, 3), 1), (slice(None), 3)):
        with pytest.raises(IndexError):
            kept[which]
    with pytest.raises(ValueError, match="50 numbers"):
        kept[:, 0] = X[:7, 0]


def test_its_file_has_no_name_and_is_gone_with_it(tmp_path: Path) -> None:
    kept = FileMatrix(tmp_path, (1000, 5))
    assert list(tmp_path.iterdir()) == []
    mine = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert sum(str(tmp_path) in name for name in mine) == 1
    del kept
    mine = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert not any(str(tmp_path) in name for name in mine)


def test_a_disk_without_room_is_named_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"features of 8\.0 GB do not fit on the disk of .*Make room"):
        FileMatrix(tmp_path, (10**8, 10))


# ---------------------------------------------------------------- the same from every source


@pytest.mark.parametrize("kind", ["parquet", "duckdb"])
@pytest.mark.parametrize("large", [False, True])
def test_features_ids_and_label_are_the_same_as_from_memory(
    tmp_path: Path, kind: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frame()
    if kind == "parquet":
        made.to_parquet(tmp_path / "t.parquet", row_group_size=90)
    about = {"path": tmp_path / "t.parquet"} if kind == "parquet" else in_duckdb(tmp_path, made)
    here = stored(tmp_path, id=("k",), label="flag", **about)
    there = TableStore.of_frames("bank", {"t": made})
    monkeypatch.setattr(tables, "FEATURES_IN_MEMORY", 0 if large else 1 << 30)
    monkeypatch.setattr(columns, "ROWS_AT_ONCE", 64)
    rows = np.random.default_rng(1).permutation(500)[:300]
    rows = rows[rows % 7 != 0]
    X, names = here.features("t", ["c", "a", "n", "whole"], rows, parts=True)
    expected, _ = there.features("t", ["c", "a", "n", "whole"], rows)
    assert isinstance(X, FileMatrix) == large and names == ("c", "a", "n", "whole")
    assert np.array_equal(X[0 : len(rows)], expected)
    assert isinstance(here.features("t", ["a"], rows)[0], np.ndarray), "a role that did not ask for parts gets an array"
    for on in (["k"], ["k", "n"], ["whole"]):
        ids = here.ids("t", on)
        assert list(ids) == list(there.ids("t", on)) == list(ids) and len(ids) == 500
    assert np.array_equal(here.label("t", rows=rows), there.label("t", "flag", rows))
    kinds = {c.name: c.dtype for c in here.describe()[0].columns}
    assert kinds.items() >= {"a": "float", "n": "int", "flag": "bool", "k": "text"}.items()
    assert here.read("t", ["k", "a"]).equals(made[["k", "a"]].astype(here.read("t", ["k", "a"]).dtypes))
    with pytest.raises(DataError, match=r"feature 'whole'.* missing values in 500 rows"):
        here.features("t", ["whole"], parts=True)


def test_no_column_but_those_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame().to_parquet(tmp_path / "t.parquet")
    here = stored(tmp_path, path=tmp_path / "t.parquet", id=("k",))
    monkeypatch.setattr(columns.InParquet, "frame", lambda self: pytest.fail("the table was read whole"))
    here.describe()
    list(here.ids("t"))
    here.features("t", ["a", "b"], parts=True)
    here.save_rows("scored", "t", np.arange(5), {"score": np.zeros(5)})
    assert here.digest("t")


def test_who_replaces_the_file_does_not_change_a_run(tmp_path: Path) -> None:
    file, made = tmp_path / "t.parquet", frame()
    made.to_parquet(file)
    here = stored(tmp_path, path=file, id=("k",))
    ids, before = here.ids("t"), here.digest("t")
    made.iloc[::-1].to_parquet(tmp_path / "other.parquet")
    os.replace(tmp_path / "other.parquet", file)
    assert list(ids)[0] == "S0000"
    assert here.digest("t") != before and list(here.ids("t"))[0] == "S0499"


# ---------------------------------------------------------------- queries and CSV files


def test_the_result_of_a_query_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "staged-of-a-member-that-was-killed").write_text("secret")
    here = stored(tmp_path, id=("k",), **in_duckdb(tmp_path, frame()))
    assert here.features("t", ["exact"])[0].shape == (500, 1)
    assert [c.dtype for c in here.describe()[0].columns if c.name == "exact"] == ["float"]
    assert list((tmp_path / "home").iterdir()) == []


def test_another_order_of_a_querys_rows_is_noticed(tmp_path: Path) -> None:
    about = in_duckdb(tmp_path, frame())
    one, two = (
        TableStore("bank", {"t": TableConfig("t", id=("k",), **about | {"query": query})}, tmp_path / "home").digest(
            "t"
        )
        for query in ("SELECT * FROM t ORDER BY n", "SELECT * FROM t ORDER BY n DESC")
    )
    again = stored(tmp_path, id=("k",), **about).digest("t")
    assert one == again != two


def test_a_large_csv_file_reads_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    about = {"path": tmp_path / "t.csv", "id": ("sme_id",), "label": "default"}
    small = stored(tmp_path, **about)
    assert small.describe()[0].rows == 4
    monkeypatch.setattr(staging, "LARGE_CSV", 0)
    monkeypatch.setattr(staging, "GROUP", 2)  # rows: their types differ from part to part
    monkeypatch.setattr(columns.InMemory, "__init__", lambda *_: pytest.fail("the file was read whole"))
    large = stored(tmp_path, **about)
    assert list(large.ids("t")) == list(small.ids("t")) == ["007", "08", "NA", "11"]
    assert [(c.name, c.dtype) for c in large.describe()[0].columns] == [
        (c.name, c.dtype) for c in small.describe()[0].columns
    ]
    for name in ("income", "ratio", "code", "good"):
        ours, theirs = (each.features("t", [name], missing=True)[0] for each in (large, small))
        assert np.array_equal(ours, theirs, equal_nan=True), name
    assert large.read("t", ["region"])["region"].tolist() == small.read("t", ["region"])["region"].tolist()


def test_a_large_csv_file_that_is_broken_names_the_line_and_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "LARGE_CSV", 0)
    (tmp_path / "t.csv").write_text("sme_id,a\n1,2\n3,4,SECRET\n" + "5,6\n" * 50)
    with pytest.raises(DataError, match=r"t\.csv: .*Expected 2 fields in line 3") as caught:
        stored(tmp_path, path=tmp_path / "t.csv", id=("sme_id",)).describe()
    assert "SECRET" not in str(caught.value)
    assert list((tmp_path / "home").iterdir()) == []
