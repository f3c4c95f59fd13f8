from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from fednb.config import TableConfig
from fednb.errors import ConfigError, DataError
from fednb.federation.tables import TableStore

CSV = "sme_id,region,income,ratio,default\n007,north,10,0.5,0\n08,south,20,,1\nNA,north,30,1.5,0\n"


def store(tmp_path: Path, **changes: object) -> TableStore:
    (tmp_path / "loans.csv").write_text(CSV)
    settings: dict[str, object] = {"path": tmp_path / "loans.csv", "id": ("sme_id",), "label": "default"} | changes
    return TableStore("bank", {"loans": TableConfig(name="loans", **settings)}, tmp_path / "home" / "tables")  # type: ignore[arg-type]


def test_ids_keep_their_exact_text(tmp_path: Path) -> None:
    assert list(store(tmp_path).ids("loans")) == ["007", "08", "NA"]
    assert store(tmp_path).read("loans")["sme_id"].tolist() == ["007", "08", "NA"]


def test_a_column_aligned_on_is_text_even_if_nobody_declared_it(tmp_path: Path) -> None:
    tables = store(tmp_path, id=())
    assert tables.features("loans", ["income"])[0][:, 0].tolist() == [10, 20, 30]
    assert list(tables.ids("loans", ["sme_id"])) == ["007", "08", "NA"]
    with pytest.raises(DataError, match="declares no id column.*sme_id, region"):
        tables.ids("loans")


def test_several_id_columns_make_one_id(tmp_path: Path) -> None:
    tables = store(tmp_path, id=("region", "sme_id"))
    assert list(tables.ids("loans")) == ["north\x1f007", "south\x1f08", "north\x1fNA"]


def test_a_row_without_an_id_has_an_empty_one(tmp_path: Path) -> None:
    tables = TableStore.of_frames("bank", {"t": pd.DataFrame({"k": [1.0, np.nan, 3.0], "j": ["a", "b", None]})})
    assert list(tables.ids("t", ["k"])) == ["1", "", "3"]
    assert list(tables.ids("t", ["k", "j"])) == ["1\x1fa", "", ""]


def test_describe_says_types_and_roles_and_no_value(tmp_path: Path) -> None:
    (info,) = store(tmp_path).describe()
    assert (info.member, info.name, info.rows) == ("bank", "loans", 3)
    assert [(c.name, c.dtype, c.role) for c in info.columns] == [
        ("sme_id", "text", "id"),
        ("region", "text", "feature"),
        ("income", "int", "feature"),
        ("ratio", "float", "feature"),
        ("default", "int", "label"),
    ]


def test_features_are_numbers_without_gaps(tmp_path: Path) -> None:
    tables = store(tmp_path)
    X, names = tables.features("loans", ["income"])
    assert X.dtype == np.float64 and X[:, 0].tolist() == [10, 20, 30] and names == ("income",)
    X, _ = tables.features("loans", ["income", "ratio"], rows=np.array([2, 0]))
    assert X.tolist() == [[30, 1.5], [10, 0.5]], "a gap in other rows is no matter"
    assert tables.label("loans").tolist() == [0, 1, 0]
    assert tables.label("loans", "default", np.array([1])).tolist() == [1]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["ratio"], ["feature 'ratio'", "'loans' of bank", "1 missing values in 3 rows"]),
        (["region"], ["feature 'region'", "3 of 3 values are not numbers"]),
        (["incme"], ["no column 'incme'", "mean 'income'"]),
        (["sme_id"], ["is an id, not a feature"]),
        (None, ["feature 'region'"]),
    ],
)
def test_features_that_cannot_be_used_are_named_without_values(
    tmp_path: Path, columns: list[str] | None, words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        store(tmp_path).features("loans", columns)
    for word in words:
        assert word in str(caught.value)
    for value in ("north", "007", "0.5"):
        assert value not in str(caught.value)


def test_types_that_are_nearly_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "flag": [True, False],
            "level": pd.Categorical([2, 1]),
            "maybe": pd.array([1, 2], dtype="Int64"),
            "digits": ["1", "2"],
            "day": pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "big": [np.inf, 1.0],
        }
    )
    tables = TableStore.of_frames("bank", {"t": frame})
    X, _ = tables.features("t", ["flag", "level", "maybe", "digits"])
    assert X.tolist() == [[1, 2, 1, 1], [0, 1, 2, 2]]
    assert [c.dtype for c in tables.describe()[0].columns] == ["bool", "category", "int", "text", "date", "float"]
    with pytest.raises(DataError, match="'day'.*is a date"):
        tables.features("t", ["day"])
    with pytest.raises(DataError, match="'big'.*1 infinite values in 2 rows"):
        tables.features("t", ["big"])


def test_unknown_tables_are_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bank has no table 'lones'\. It has loans; did you mean 'loans'"):
        store(tmp_path).read("lones")


def test_a_missing_label_says_which_key_to_add(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="declares no label"):
        store(tmp_path, label=None).label("loans")


def test_the_digest_changes_with_the_file(tmp_path: Path) -> None:
    tables = store(tmp_path)
    before = tables.digest("loans")
    tables.ids("loans")
    tables.ids("loans", ["region"])
    assert tables.digest("loans") == before, "how a table is read does not change it"
    (tmp_path / "loans.csv").write_text(CSV + "9,west,1,1,1\n")
    assert tables.digest("loans") != before
    assert len(tables.read("loans")) == 4


def test_saved_tables_last_and_are_the_owners_alone(tmp_path: Path) -> None:
    tables = store(tmp_path)
    frame = tables.read("loans").fillna({"ratio": 0.0})
    tables.save("clean", frame, ["sme_id"], "default")
    again = store(tmp_path)
    assert again.names() == ["loans", "clean"]
    assert list(again.ids("clean")) == ["007", "08", "NA"]
    assert again.table("clean").label == "default"
    assert again.features("clean", ["ratio"])[0][:, 0].tolist() == [0.5, 0.0, 1.5]
    assert [c.role for c in again.describe()[1].columns] == ["id", "feature", "feature", "feature", "label"]
    file = tmp_path / "home" / "tables" / "clean.parquet"
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    before = again.digest("clean")
    again.save("clean", frame[["sme_id", "income"]], ["sme_id"], None)
    assert again.digest("clean") != before and again.table("clean").label is None


@pytest.mark.parametrize(
    ("name", "frame", "words"),
    [
        ("loans", pd.DataFrame({"a": [1]}), "declares a table 'loans'.*another name"),
        ("../x", pd.DataFrame({"a": [1]}), "is not a name for a table"),
        ("new", pd.DataFrame({3: [1]}), "1 columns have names that are not text"),
        ("new", pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns of the same name"),
        ("new", pd.DataFrame({"a": ["secret", 5]}), "mixed or unknown types"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path: Path, name: str, frame: pd.DataFrame, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        store(tmp_path).save(name, frame, [], None)
    assert "secret" not in str(caught.value)


def test_an_id_that_is_not_there_cannot_be_declared_in_save(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'sme_id'"):
        store(tmp_path).save("new", pd.DataFrame({"a": [1]}), ["sme_id"], None)


def test_scores_become_a_table_beside_their_ids(tmp_path: Path) -> None:
    tables = store(tmp_path)
    tables.save_rows("scored", "loans", np.array([2, 0]), {"score": np.array([0.9, 0.1])})
    assert tables.read("scored").to_dict("list") == {"sme_id": ["NA", "007"], "score": [0.9, 0.1]}
    assert tables.table("scored").id == ("sme_id",)


def test_check_names_the_key_of_a_column_that_is_not_in_the_file(tmp_path: Path) -> None:
    store(tmp_path).check()
    with pytest.raises(ConfigError, match=r"party\.bank\.tables\.loans\.id.*no column 'sme-id'.*mean 'sme_id'"):
        store(tmp_path, id=("sme-id",)).check()
    with pytest.raises(ConfigError, match=r"tables\.loans\.label.*no column 'y'"):
        store(tmp_path, label="y").check()


def test_a_wrong_separator_is_guessed_at(tmp_path: Path) -> None:
    tables = store(tmp_path)
    (tmp_path / "loans.csv").write_text(CSV.replace(",", ";"))
    with pytest.raises(ConfigError, match="separator"):
        tables.check()
    fixed = TableStore("bank", {"loans": TableConfig("loans", tmp_path / "loans.csv", id=("sme_id",), separator=";")})
    fixed.check()
    assert list(fixed.ids("loans")) == ["007", "08", "NA"]


def test_a_byte_order_mark_and_chosen_columns(tmp_path: Path) -> None:
    tables = store(tmp_path, columns=("sme_id", "default", "income"))
    (tmp_path / "loans.csv").write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    tables.check()
    assert [c.name for c in tables.describe()[0].columns] == ["sme_id", "income", "default"]


def test_parquet_ids_with_gaps_stay_whole_numbers(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pd.DataFrame({"k": pd.array([1, None, 2**60 + 1], dtype="Int64"), "x": [1.0, 2.0, 3.0]}).to_parquet(file)
    tables = TableStore("agency", {"t": TableConfig("t", file, id=("k",))})
    tables.check()
    assert list(tables.ids("t")) == ["1", "", str(2**60 + 1)]
    assert tables.features("t")[1] == ("x",)


def test_a_duckdb_file_is_read_by_its_query(tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT '0' || i AS id, 4611686018427387904 + i AS big, i * 0.5 AS x FROM range(3) r(i)"
        )
    table = TableConfig("t", source=f"duckdb:///{file}", query="SELECT * FROM t WHERE x < 1 ORDER BY id", id=("big",))
    tables = TableStore("agency", {"t": table})
    tables.check()
    assert list(tables.ids("t")) == [str(2**62), str(2**62 + 1)]
    assert tables.features("t", ["x"])[0][:, 0].tolist() == [0.0, 0.5]
    before = tables.digest("t")
    with duckdb.connect(str(file)) as connection:
        connection.execute("INSERT INTO t VALUES ('07', 7, 0.25)")
    assert tables.digest("t") != before and len(tables.read("t")) == 3


def test_a_wrong_query_shows_the_databases_own_words(tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    duckdb.connect(str(file)).close()
    tables = TableStore("agency", {"t": TableConfig("t", source=f"duckdb:///{file}", query="SELECT * FROM nowhere")})
    with pytest.raises(DataError, match=r"table 't' of agency cannot be read: .*nowhere"):
        tables.describe()


def test_a_sqlite_file_is_read_by_its_query(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE t (id INTEGER, x REAL)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(1, 0.5), (None, 1.5)])
    connection.commit()
    connection.close()
    tables = TableStore(
        "agency", {"t": TableConfig("t", source=f"sqlite:///{file}", query="SELECT * FROM t", id=("id",))}
    )
    assert list(tables.ids("t")) == ["1", ""]
    assert tables.features("t")[0][:, 0].tolist() == [0.5, 1.5]


def test_a_database_that_duckdb_cannot_attach_says_what_to_install() -> None:
    tables = TableStore("agency", {"t": TableConfig("t", source="nosuchdb://host/db", query="SELECT 1")})
    with pytest.raises(DataError, match="'nosuchdb'.*extension is not installed.*INSTALL nosuchdb"):
        tables.describe()


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_query_that_fails_at_a_row_quotes_no_value(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.db"
    query = "SELECT CAST(a AS INTEGER) AS a FROM t"
    if kind == "duckdb":
        with duckdb.connect(str(file)) as made:
            made.execute("CREATE TABLE t AS SELECT 'SECRET' AS a")
    else:
        query = "SELECT a FROM t"
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE t AS SELECT CAST(x'534543524554ff' AS TEXT) AS a")  # "SECRET", then no UTF-8
        connection.commit()
        connection.close()
    tables = TableStore("agency", {"t": TableConfig("t", source=f"{kind}:///{file}", query=query)})
    with pytest.raises(DataError, match="table 't' of agency cannot be read: the query fails") as caught:
        tables.describe()
    assert "SECRET" not in str(caught.value)


def test_a_database_that_cannot_be_reached_tells_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def load_extension(self, kind: str) -> None:
            return

        def execute(self, statement: str) -> None:
            raise duckdb.IOException(f"Unable to connect: {statement}")

        def close(self) -> None:
            return

    monkeypatch.setattr(duckdb, "connect", lambda **_: Driver())
    source = "postgres://owner:hunter2@host/db"
    tables = TableStore("agency", {"t": TableConfig("t", source=source, query="SELECT 1")})
    with pytest.raises(DataError, match="postgres database cannot be reached") as caught:
        tables.describe()
    assert "hunter2" not in str(caught.value)


def test_scores_replace_scores_and_no_other_table(tmp_path: Path) -> None:
    tables = store(tmp_path)
    tables.save("clean", tables.read("loans"), ("sme_id",), "default")
    rows, scores = np.array([0, 1]), {"score": np.array([0.1, 0.2])}
    for name in ("clean", "loans"):
        with pytest.raises(DataError, match="under another name"):
            tables.save_rows(name, "loans", rows, scores)
    with pytest.raises(DataError, match="sme_id is an id column"):
        tables.save_rows("scored", "loans", rows, {"sme_id": np.array([0.1, 0.2])})
    for _ in range(2):
        tables.save_rows("scored", "loans", rows, scores)
    assert len(tables.read("clean")) == 3 and len(tables.read("scored")) == 2
