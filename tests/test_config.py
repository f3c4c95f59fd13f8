from __future__ import annotations

from pathlib import Path

import pytest

from fednb import config
from fednb.errors import ConfigError

GOOD = """
[federation]
hub = "tcp://127.0.0.1:0"            # 0: any free port
coordinator = "coordinator"
[party.bank]
mode = "open"
release = ["coefficients"]
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency.tables.invoices]
path = "invoices.parquet"
id = ["country", "sme_id"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "loans.csv").write_text("sme_id,default\n1,0\n")
    (tmp_path / "invoices.parquet").write_bytes(b"")
    return tmp_path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, folder / "federation.toml")
    return str(caught.value)


def test_the_file_of_the_readme_is_understood(folder: Path) -> None:
    (folder / "federation.toml").write_text(GOOD)
    federation = config.load(folder / "federation.toml")
    assert federation.members == {
        "hub": "hub",
        "coordinator": "coordinator",
        "bank": "party",
        "agency": "party",
        "analyst": "analyst",
    }
    bank, agency = federation.parties["bank"], federation.parties["agency"]
    assert (bank.mode, bank.release) == ("open", ("coefficients",))
    assert agency.mode == "protocol-only", "closed unless the owner says otherwise"
    assert bank.tables["loans"].path == (folder / "loans.csv").resolve()
    assert bank.tables["loans"].id == ("sme_id",)
    assert agency.tables["invoices"].id == ("country", "sme_id")
    assert federation.coordinator.mode == "open"
    assert federation.name == "federation"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('mode = "open"', 'modus = "open"', ["line 6", "party.bank.modus", "unknown key", '"mode"', "mean 'mode'"]),
        ('mode = "open"', 'mode = "opne"', ["line 6", "party.bank.mode", '"open", "guarded", "protocol-only"']),
        ('mode = "open"', "mode = 3", ["line 6", "party.bank.mode", "expected str, got int"]),
        ('mode = "open"', "guard.k = 3", ["line 6", "party.bank.guard.k", "from 5 to 1000"]),
        ('mode = "open"', "guard.kay = 10", ["line 6", "party.bank.guard.kay", "unknown key", '"leverage"']),
        ('label = "default"', 'roles.x = "keys"', ["line 11", "loans.roles.x", "no role", '"key", "measure"']),
        ('label = "default"', 'roles.sme_id = "key"', ["line 11", "loans.roles.sme_id", "the table's id"]),
        ('label = "default"', 'roles.x = {role = "key", cuts = [3, 1]}', ["line 11", "roles.x.cuts", "must rise"]),
        ('mode = "open"', 'dask = "here:8786"', ["line 6", "party.bank.dask", 'write "tls://HOST:PORT"']),
        ('mode = "open"', 'dask = "tcp://10.0.0.9:8786"', ["line 6", "party.bank.dask", "in plain text", "tls://"]),
        ('"coefficients"', '"rows"', ["line 7", "party.bank.release", "'rows'", '"coefficients"']),
        ("127.0.0.1:0", "10.0.0.1:5555", ["line 6", "party.bank.mode", "loopback", "tcp://10.0.0.1:5555"]),
        ("tcp://127.0.0.1:0", "127.0.0.1", ["line 3", "federation.hub", "tcp://HOST:PORT"]),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:x", ["line 3", "federation.hub", "tcp://HOST:PORT"]),
        ('coordinator = "coordinator"', 'coordinator = "bank"', ["line 4", "federation.coordinator", "is a party"]),
        ('coordinator = "coordinator"', 'coordinator = "analyst"', ["'analyst'", "already that of another member"]),
        ("[party.agency.", "[party.Bank.", ["line 12", "party.Bank", "already that of another member"]),
        ("[party.agency.", "[party.all.", ["line 12", "party.all", "taken"]),
        ("[party.agency.", '[party."a b".', ["line 12", "'a b' is not a name"]),
        ('path = "loans.csv"', 'path = "loan.csv"', ["line 9", "party.bank.tables.loans.path", "no file", "loan.csv"]),
        ('path = "loans.csv"', 'path = "loans.xlsx"', ["line 9", "neither .csv nor .parquet"]),
        ('path = "loans.csv"', "", ["line 8", "party.bank.tables.loans", "path =", "source ="]),
        ('path = "loans.csv"', 'source = "duckdb:///x.duckdb"', ["line 8", "needs query"]),
        ('path = "loans.csv"', 'source = "x"\nquery = "SELECT 1"', ["line 9", "tables.loans.source", "duckdb:///"]),
        ('path = "loans.csv"', 'path = "loans.csv"\nquery = "SELECT 1"', ["line 10", "loans.query", "with source"]),
        ('label = "default"', 'label = "sme_id"', ["line 11", "tables.loans.label", "cannot be both"]),
        ('label = "default"', 'columns = ["default"]', ["line 11", "tables.loans.columns", "leaves out 'sme_id'"]),
        ("[federation]", "[fedration]", ["line 2", "fedration", "mean 'federation'"]),
        ('hub = "tcp://127.0.0.1:0"', "", ["line 2", "federation", "'hub' is missing"]),
        ("[party.agency.tables.invoices]", "[x]\n[x]", ["not valid TOML", "line 13"]),
        (
            "[party.agency.tables.invoices]",
            "[analyst.ann]\nrole = 1\n[party.b.tables.t]",
            ["line 13", "analyst.ann.role"],
        ),
        ("[party.agency.tables.invoices]", "[coordinator]", ["coordinator.path", "unknown key", '"decryption_quota"']),
        ("[party.agency.tables.invoices]", "[party]\nx = 1\n[party.y]", ["line 13: party.x: must be a section"]),
    ],
)
def test_a_wrong_key_is_named_with_its_line_and_what_is_allowed(
    folder: Path, old: str, new: str, expected: list[str]
) -> None:
    assert old in GOOD
    said = refusal(folder, GOOD.replace(old, new, 1))
    for words in [str(folder / "federation.toml"), *expected]:
        assert words in said, said


def test_broken_toml_says_where(folder: Path) -> None:
    assert "line 2" in refusal(folder, '[federation]\nhub = "tcp')


def test_a_missing_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load(tmp_path / "nowhere.toml")


def test_lines_are_found_behind_multi_line_strings_and_arrays(folder: Path) -> None:
    text = GOOD.replace(
        'id = ["country", "sme_id"]',
        'id = [  # "]" in a comment\n  "country",\n  "sme_id",\n]\n[party.third.tables.t]\nsource = "mysql://db"\n'
        'query = """\n[party.fake]\nid = "x"\nmodes = 1\n"""\nmode = "open"',
    )
    said = refusal(folder, text)
    assert "line 25" in said and "party.third.tables.t.mode" in said, said


def test_dotted_keys_have_lines_too(folder: Path) -> None:
    said = refusal(folder, GOOD.replace("[party.bank]", "[party]\nbank.surprise = 1\n[party.zoo]"))
    assert "line 6: party.bank.surprise" in said, said


def test_database_files_resolve_against_the_federation_file(folder: Path) -> None:
    (folder / "x.duckdb").touch()
    table = '[party.bank.tables.t]\nsource = "{}"\nquery = "SELECT 1 AS a"'
    text = GOOD.replace("[party.agency.tables.invoices]", table + "\n[party.agency.tables.invoices]")
    for source in ("duckdb:///x.duckdb", f"duckdb:///{folder / 'x.duckdb'}"):
        federation = config.parse(text.format(source), folder / "federation.toml")
        assert federation.parties["bank"].tables["t"].source == f"duckdb:///{(folder / 'x.duckdb').resolve()}"
    assert "no file" in refusal(folder, text.format("duckdb:///y.duckdb"))


INSIDE = GOOD + '[coordinator]\norganisation = "{}"\n[party.register]\naccept_coordinator_at = ["bank", "agency"]\n'


def test_a_coordinator_inside_a_partys_organisation_needs_every_other_party(folder: Path) -> None:
    said = refusal(folder, INSIDE.format("bank"))
    for words in ["line 16: coordinator.organisation", "policy of agency does not", "every score", "others' labels"]:
        assert words in said, said
    assert "accept_coordinator_at" not in said, "a refusal never suggests to weaken a policy"

    agency = '[party.agency]\naccept_coordinator_at = ["bank"]\n'
    agrees = INSIDE.replace("[party.agency.tables", f"{agency}[party.agency.tables")
    federation = config.parse(agrees.format("bank"), folder / "f.toml")
    assert federation.coordinator.organisation == "bank"
    assert federation.parties["agency"].accept_coordinator_at == ("bank",)
    assert "policy of bank does not" in refusal(folder, agrees.format("agency")), "the bank has not agreed"
    assert config.parse(GOOD, folder / "f.toml").coordinator.organisation == "", "apart from all by default"


@pytest.mark.parametrize("name", ["analyst", "coordinator"])
def test_only_a_party_can_be_where_the_coordinator_is(folder: Path, name: str) -> None:
    assert "is no party" in refusal(folder, INSIDE.format(name))


def test_the_coordinators_own_file_need_not_hold_the_parties_policies(folder: Path) -> None:
    own = '[federation]\nhub = "tcp://127.0.0.1:0"\n[coordinator]\norganisation = "bank"'
    assert config.parse(own, folder / "f.toml").coordinator.organisation == "bank"


def test_a_hub_beyond_this_machine_closes_the_coordinator_by_default(folder: Path) -> None:
    text = GOOD.replace("127.0.0.1:0", "0.0.0.0:7000").replace('mode = "open"', "")
    assert config.parse(text, folder / "f.toml").coordinator.mode == "protocol-only"


@pytest.mark.parametrize(
    ("address", "local"),
    [("tcp://127.0.0.1:0", True), ("tcp://[::1]:5", True), ("tcp://localhost:5", True), ("tcp://127.8.9.1:5", True)]
    + [
        ("tcp://0.0.0.0:5", False),
        ("tcp://192.168.1.4:5", False),
        ("tcp://example.org:5", False),
        ("tcp://*:5", False),
    ],
)
def test_loopback_is_recognised(address: str, local: bool) -> None:
    assert config.is_loopback(address) is local


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tls://dask.example.org:8786"])
def test_a_cluster_is_taken_on_this_machine_or_by_tls(folder: Path, address: str) -> None:
    text = GOOD.replace('mode = "open"', f'mode = "open"\ndask = "{address}"', 1)
    assert config.parse(text, folder / "f.toml").parties["bank"].dask == address
    assert config.parse(GOOD, folder / "f.toml").parties["bank"].dask == ""


@pytest.mark.parametrize(("hub", "sections", "expected"), [
    ("tcp://127.0.0.1:0", "", None),
    ("tcp://127.0.0.1:0", "[party.bank.analysts]", {}),
    ("tcp://10.0.0.1:7000", "", {}),
    ("tcp://127.0.0.1:0", '[party.bank.analysts.ann]\ntables = ["loans"]', {"ann": ("loans",)}),
])  # fmt: skip
def test_what_analysts_may_do_is_closed_outside_this_machine_and_once_one_is_named(
    tmp_path: Path, hub: str, sections: str, expected: dict[str, tuple[str, ...]] | None
) -> None:
    text = f'[federation]\nhub = "{hub}"\n[party.bank]\n{sections}\n'
    permits = config.parse(text, tmp_path / "f.toml").parties["bank"].analysts
    assert (None if permits is None else {name: permit.tables for name, permit in permits.items()}) == expected


RULES = """
[party.bank.protocols]
install = ["ours:SUM"]
partners = ["agency"]
max_iterations = 50
[party.bank.protocols.psi]
max_ids = 1000
[coordinator]
decryption_quota = 2.0
"""


def test_rules_on_runs_hold_where_a_file_says_them_and_are_safe_where_it_does_not(folder: Path) -> None:
    parties = config.parse(GOOD + RULES, folder / "federation.toml").parties
    rules = parties["bank"].rules
    assert parties["bank"].protocols == ("ours:SUM",)
    assert (rules.partners, rules.max_iterations, rules.max_ids) == (("agency",), 50, 10_000_000)
    assert rules.on("vertical_logistic") is rules
    assert (rules.on("psi").max_ids, rules.on("psi").max_iterations, rules.on("psi").partners) == (
        1000,
        50,
        ("agency",),
    )
    assert rules.decrypted_per_row == parties["agency"].rules.decrypted_per_row == 2.0
    assert parties["bank"].rules.cell_columns, "its cells read every row: it is open"
    plain = config.parse(GOOD, folder / "federation.toml").parties["agency"].rules
    assert plain == config.RulesConfig() and not plain.cell_columns
    assert plain.decrypted_per_row == 0.5 and not plain.other_ids


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_iteration = 5", ["party.bank.protocols.max_iteration", "unknown key", "mean 'max_iterations'"]),
        ("rows_apart = 0", ["party.bank.protocols.rows_apart", ">= 1"]),
        ("min_ids = 2.5", ["party.bank.protocols.min_ids", "expected int, got float"]),
        ("min_ids = 20\nmax_ids = 10", ["party.bank.protocols", "min_ids, 20, is above max_ids, 10"]),
        ('install = ["ours"]', ["party.bank.protocols.install", "does not name a protocol"]),
        ('[party.bank.protocols.psi]\nallow = ["psi"]', ["party.bank.protocols.psi.allow", "unknown key"]),
        ("of = 3", ["party.bank.protocols.of", "unknown key"]),
        ("[party.bank.protocols.psi]\nruns_a_day = -1", ["party.bank.protocols.psi.runs_a_day", ">= 0"]),
    ],
)
def test_a_rule_that_is_none_is_refused(folder: Path, line: str, expected: list[str]) -> None:
    said = refusal(folder, GOOD + "[party.bank.protocols]\n" + line + "\n")
    assert all(words in said for words in expected), said


def test_budgets_of_an_analyst_are_read(folder: Path) -> None:
    text = GOOD + '[party.bank.analysts.ann]\nprotocols = ["*"]\nruns_a_day = 5\ndecrypted = 0\n'
    permit = (config.parse(text, folder / "federation.toml").parties["bank"].analysts or {})["ann"]
    assert (permit.runs_a_day, permit.decrypted) == (5, 0)
    assert "runs_a_day" in refusal(folder, text.replace("= 5", "= -5"))


ONLINE = """[party.agency.online.bank]
table = "invoices"
models = ["c0ffee"]
requests_a_day = 10
"""


def test_another_partys_service_may_ask_what_a_section_of_its_own_says(folder: Path) -> None:
    def parsed(text: str) -> config.FederationConfig:
        return config.parse(text, folder / "federation.toml")

    assert parsed(GOOD).parties["agency"].online == {}
    (permit,) = parsed(GOOD + ONLINE).parties["agency"].online.values()
    assert (permit.table, permit.models, permit.requests_a_day, permit.reasons) == ("invoices", ("c0ffee",), 10, 0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"invoices"', '"invoice"', ["party.agency.online.bank.table", "is no table of agency"]),
        ("= 10", "= -1", ["requests_a_day", ">= 0"]),
        ("requests_a_day = 10", "", ["requests_a_day", "is missing"]),
        ('["c0ffee"]', '["../x"]', ["models", "neither the id of a saved model"]),
        ("= 10", "= 10\nreasons = 5", ["reasons", "<= 4"]),
        ("= 10", "= 10\nreason = 1", ["unknown key", "Did you mean 'reasons'?"]),
        ("online.bank", "online.agency", ["own service needs no permit"]),
    ],
)
def test_a_permit_that_is_none_is_refused(folder: Path, old: str, new: str, words: list[str]) -> None:
    said = refusal(folder, GOOD + ONLINE.replace(old, new))
    assert all(word in said for word in words), said
