from __future__ import annotations

from pathlib import Path

import pytest

from fednb.errors import ConfigError, DataError
from fednb.federation.agent import finder

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
