from __future__ import annotations

import pytest

from fednb.errors import Refused
from fednb.policy import codeview

CELL = """
import numpy as np, os
from pandas import DataFrame
t = fed.load("loans")
u = fed.load(name)
high = t[t["income"] > 5].assign(x=np.log(t["leverage"]))
print(high.mean())
getattr(t, "to_csv")("/tmp/x")
t.__class__
eval("1")
high.describe()
"""


def test_a_reading_names_what_an_owner_looks_for() -> None:
    found = codeview.read(CELL)
    assert found.imports == ["numpy", "os", "pandas.DataFrame"]
    assert found.tables == ["loans"]
    assert found.columns == ["income", "leverage"]
    assert found.outputs == ["print at line 7", "the value of line 11"]
    said = "\n".join(found.attention)
    for expected in (
        "line 2: os reaches beyond",
        "line 5: the table that it loads is not named",
        "line 8: getattr",
        "line 9: __class__",
        "line 10: eval",
    ):
        assert expected in said


@pytest.mark.parametrize("same", ["x = 1 # note\n", "x  =  1\n\n", "\nx = (1)\n"])
def test_a_digest_is_of_the_syntax_and_not_of_the_writing(same: str) -> None:
    assert codeview.digest(same) == codeview.digest("x = 1")


@pytest.mark.parametrize("other", ["x = 2", "y = 1", "x = '1'", "x = 1; x", "x = 1.0", "x = True"])
def test_a_digest_changes_with_what_the_cell_does(other: str) -> None:
    assert codeview.digest(other) != codeview.digest("x = 1")


@pytest.mark.parametrize(
    "code", ["!ls", "%time 1", "x =", "a\x00b", "fed?", "(" * 5000, "a" + ".a" * 9000, "1" + "+1" * 20_000]
)
def test_what_python_does_not_understand_is_refused(code: str) -> None:
    with pytest.raises(Refused, match="plain Python|invisible") as caught:
        codeview.parse(code, "bank")
    assert caught.value.rule == "approval" and caught.value.member == "bank"


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\x1b[8m", "\r", "\u2066"])
def test_text_that_does_not_show_as_it_is_is_refused(hidden: str) -> None:
    with pytest.raises(Refused, match="invisible or control"):
        codeview.parse(f"x = 1  # {hidden}", "bank")
    codeview.parse("x = 'Jürgen — naïve'  # häufig", "bank")


def test_what_nobody_would_read_is_refused() -> None:
    with pytest.raises(Refused, match="100,001 characters"):
        codeview.parse("x" * 100_001, "bank")


def test_names_in_other_letters_are_pointed_at() -> None:
    assert "may look like another" in codeview.read("рrint = 1\nрrint").attention[0]


def test_a_difference_shows_both_lines() -> None:
    lines = codeview.difference("a = 1\nb = 2", "a = 1\nb = 3")
    assert "-b = 2" in lines and "+b = 3" in lines and codeview.difference("a", "a") == []
