from __future__ import annotations

from pathlib import Path

import pytest

from fednb.config import PartyConfig, RulesConfig
from fednb.errors import ConfigError, DataError
from fednb.federation.agent import finder, start_party
from fednb.wire.loopback import Network

TOY = """
from fednb.protocols.base import Params, Protocol

class Nothing(Params):
    pass

TOY = Protocol(name="toy", version=1, params=Nothing, roles={}, learns={})
OTHER = 5
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owners_protocols.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)


def test_an_owner_installs_a_protocol_by_name(installed: None) -> None:
    find = finder(["owners_protocols:TOY"])
    assert find("toy").version == 1
    assert find("psi").name == "psi"
    with pytest.raises(DataError, match="toy"):
        find("other")
    with pytest.raises(DataError, match="there is no protocol 'toy'"):
        finder([])("toy")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:X", "'no_such_module:X' cannot be loaded"),
        ("owners_protocols:NOTHING", "cannot be loaded.*NOTHING"),
        ("owners_protocols:OTHER", "is not a protocol but a int"),
    ],
)
def test_a_protocol_that_cannot_be_loaded_is_named(installed: None, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        finder([name])


@pytest.mark.parametrize(
    ("rules", "where"),
    [
        (RulesConfig(allow=("psi", "toys")), "party.bank.protocols.allow: there is no protocol 'toys'"),
        (RulesConfig(of={"vertical_logistics": RulesConfig()}), "party.bank.protocols.vertical_logistics: there is no"),
    ],
)
def test_a_rule_on_a_protocol_that_there_is_not_stops_the_party(tmp_path: Path, rules: RulesConfig, where: str) -> None:
    network = Network({"bank": "party"})
    with pytest.raises(ConfigError, match=where):
        start_party(
            network.endpoint("bank"),
            PartyConfig("bank", rules=rules),
            tmp_path,
            coordinator="coordinator",
            run_folder=tmp_path,
            pipe=lambda path: pytest.fail("nothing is opened"),
        )
    network.endpoints["bank"].close()
