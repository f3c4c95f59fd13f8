from __future__ import annotations

from pathlib import Path

import pytest

from fednb import cli
from fednb.config import PermitConfig, RulesConfig
from fednb.policy import rule_words

FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank.protocols]
partners = ["agency"]
rows_apart = 25
[party.bank.protocols.psi]
max_ids = 5000
[party.bank.tables.loans]
path = "loans.csv"
id = "id"
[party.bank.online.agency]
table = "loans"
models = ["c0ffee"]
requests_a_day = 1234
reasons = 3
[party.bank.analysts.ann]
protocols = ["psi"]
partners = ["agency"]
runs_a_day = 7
decrypted = 1000
"""


def test_every_rule_is_said_and_what_one_protocol_has_instead() -> None:
    marked = RulesConfig(
        ("psi",),
        ("agency",),
        11,
        1212,
        False,
        33,
        4.5,
        55,
        66,
        0.75,
        77,
        True,
        True,
        88,
        99,
        {"psi": RulesConfig(rows_apart=3)},
    )
    text = "\n".join(rule_words.rules(marked))
    for word in ("psi", "agency", "11 to 1,212", "33 rows", "4.5 rows", "55", "66", "0.75", "77 rows", "88", "99"):
        assert word in text, word
    assert "rows_apart = 3" in text and "declared ids only" in text
    assert "standard errors of models with this party's features: yes" in text
    assert "alignments by spu, for parties that keep to the protocol: yes" in text
    assert "features: no" in "\n".join(rule_words.rules(RulesConfig()))
    assert "every protocol" in next(iter(rule_words.rules(RulesConfig())))
    assert "single columns: not of tables that cells or analysts' rules made" in text
    assert "single columns: of tables" in "\n".join(rule_words.rules(RulesConfig(cell_columns=True)))
    assert rule_words.budgets(PermitConfig()) == ""


def test_the_command_says_the_rules_on_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "federation.toml").write_text(FILE)
    (tmp_path / "loans.csv").write_text("id,x\n1,2\n")
    assert cli.main(["policy", "check", str(tmp_path / "federation.toml")]) == 0
    said = capsys.readouterr().out
    assert "with agency" in said and "differ by 25 rows" in said and "psi instead: max_ids = 5000" in said
    assert "agency's online service may ask about 1,234 applicants a day (UTC), looked up in loans, for c0ffee" in said
    assert "part of each score and 3 reasons" in said
    assert "no other party's service" in "".join(rule_words.online({}))
    assert "7 runs a day and 1,000 decrypted numbers in all" in said and "Together with: agency" in said
