"""What other members write cannot act in a terminal."""

from __future__ import annotations

import pytest

from fednb.errors import LinkError, PeerLost, UnexpectedMessage, VersionMismatch
from fednb.federation.alignment import _Sets
from fednb.federation.messages import MemberResult
from fednb.federation.result import RunResult, rebuilt
from fednb.federation.views import Coefficients, ModelView, bundle, decode, encode
from fednb.text import plain


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[2J\x1b]0;owned\x07invoices", "[2J]0;ownedinvoices"),
        ("safe\rrm -rf", "saferm -rf"),
        ("in\u202evoices", "invoices"),  # right-to-left override
        ("zero\u200bwidth", "zerowidth"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("Grüße, 会社", "Grüße, 会社"),
    ],
)
def test_control_and_format_characters_go(hostile: str, harmless: str) -> None:
    assert plain(hostile) == harmless


def test_long_text_is_cut() -> None:
    assert len(plain("x" * 10_000, 100)) == 100
    assert plain("x" * 10_000, 100).endswith("…")


@pytest.mark.parametrize("kind", [LinkError, PeerLost, UnexpectedMessage, VersionMismatch])
def test_the_reason_that_a_peer_gives_for_leaving_reaches_nobody_with_escapes(kind: type[LinkError]) -> None:
    assert str(kind("bank ended the conversation: \x1b]0;owned\x07\x1b[2Jbye")) == (
        "bank ended the conversation: ]0;owned[2Jbye"
    )


def test_what_a_column_is_called_cannot_act_in_a_terminal() -> None:
    view = ModelView(title="m", parts=[Coefficients(member="bank", columns=["a\x1b[2J\rb"], values=[1.0])])
    for text in (view.plain(), bundle(view)["text/plain"], decode(encode(view)).plain()):
        assert "\x1b" not in text and "\r" not in text and "a[2Jb" in text


def test_a_members_error_reaches_the_analyst_without_escapes() -> None:
    error = rebuilt("\x1b[31mboom", "DataError", "bank\x1b[0m")
    assert "\x1b" not in str(error) and "boom" in str(error)


@pytest.mark.parametrize(
    "said", [{}, {"rows": -1, "ids": 2}, {"rows": "many", "ids": 2}, {"rows": 1, "ids": 2, "formats": 3}]
)
def test_public_results_that_are_not_what_they_should_be_are_blamed_on_their_member(said: dict[str, object]) -> None:
    result = RunResult("r", {"agency": MemberResult(role="party", public=said)}, 1.0)
    with pytest.raises(UnexpectedMessage, match="agency made something public that cannot be read"):
        result.read("agency", _Sets)
