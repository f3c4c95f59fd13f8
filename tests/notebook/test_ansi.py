"""Terminal text: colours stay, carriage returns act, everything else that a terminal obeys is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.notebook import ansi


@pytest.mark.parametrize(
    "text",
    [
        "\x1b]0;new title\x07",
        "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
        "\x1b[6n",
        "\x1b[2J\x1b[1;1H",
        "\x1bP+q544e\x1b\\",
        "\x1bc",
        "\x9b31m",
        "\x07\x00\x0e",
        "\u202egnp.exe",
    ],
)
def test_what_a_terminal_obeys_is_removed(text: str) -> None:
    cleaned = ansi.clean(f"a{text}b")
    assert cleaned.startswith("a") and cleaned.endswith("b")
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0x202A <= ord(c) <= 0x202E for c in cleaned)


def test_colours_newlines_and_progress_stay() -> None:
    text = "\x1b[1;31mred\x1b[0m\tx\n10%\r20%\b"
    assert ansi.clean(text) == text
    assert ansi.plain(text) == "red\tx\n10%\r20%\b"


@given(st.text(max_size=60))
def test_no_escape_but_a_colour_survives(text: str) -> None:
    cleaned = ansi.clean(text.replace("x", "\x1b[").replace("y", "\x1b]"))
    assert "\x1b" not in ansi.plain(cleaned)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r20%\r100%\n", "100%\n"),
        ("longer text\rabc", "abcger text"),
        ("10%\r", "10%"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("abc\b\bx", "ax"),
        ("\b\bx", "x"),
        ("12345\rab\b", "a2345"),
        ("plain\ntext", "plain\ntext"),
    ],
)
def test_carriage_returns_and_backspaces_are_carried_out(text: str, shown: str) -> None:
    assert ansi.shown(ansi.settle(text)) == shown


def test_a_progress_bar_that_comes_in_pieces_settles_as_if_in_one() -> None:
    whole = "".join(f"\r{n:3d}%|{'#' * (n // 10):<10}|" for n in range(0, 101, 5)) + "\ndone\n"
    screen = ""
    for start in range(0, len(whole), 7):
        screen = ansi.settle(screen + whole[start : start + 7])
    assert ansi.shown(screen) == "100%|##########|\ndone\n"


def test_html_escapes_text_and_turns_colours_into_spans() -> None:
    shown = ansi.to_html("\x1b[1;31m<b>&\x1b[0m plain \x1b[38;5;31mx\x1b[48;2;31;32;33my\x1b[39mz")
    assert shown.startswith('<span style="color:#d73a49;font-weight:bold">&lt;b&gt;&amp;</span> plain x')
    assert "<b>" not in shown
    assert shown.endswith("xyz")  # numbers of 256 and RGB colours are not read as codes


def test_any_colour_code_at_all_is_survived() -> None:
    assert ansi.to_html("\x1b[;;;m\x1b[999m\x1b[38m\x1b[38;2mx") == "x"
