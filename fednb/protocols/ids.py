"""Ids as different companies write them: one form to compare, and words for how they differ.

    "zz-123-456-789"   "ZZ 123 456 789"   " ＺＺ１２３４５６７８９ "   ->   b"zz123456789"

Case, spaces, dashes, invisible characters and the script of digits are spelling. Everything else tells two ids
apart, leading zeros included: a number that lost its zeros in a spreadsheet must be repaired by its owner.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

SEPARATOR = "\x1f"  # between the columns of a composite id: stays, so that ("1", "23") is not ("12", "3")
MIN_ROWS = 10  # a format that fewer rows have is not named: it could single one of them out
MAX_FORMATS = 8
OTHER = "other"
_LONGEST = 40  # characters of a format that are shown, and of ids that are sorted as one array
_BREAK = "\n"
_MANY = 65536

Ids = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Prepared:
    """A party's ids, ready to be compared."""

    ids: list[bytes]  # distinct normalised ids, in the order of their first row
    rows: npt.NDArray[np.int64]  # [len(ids)] position of that row
    duplicates: int  # rows whose id an earlier row has
    missing: int  # rows without an id

    @property
    def read(self) -> int:
        """Rows that were looked at."""
        return len(self.ids) + self.duplicates + self.missing

    def take(self, which: npt.NDArray[np.int64]) -> list[bytes]:
        """The ids at these positions of `ids`."""
        return [self.ids[i] for i in which.tolist()]

    def by_id(self, which: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """These positions, in the order of their ids' bytes."""
        return which[order(self.take(which))]


class TextColumn:
    """Many ids in two arrays, to be kept and looked up by position."""

    def __init__(self, text: npt.NDArray[np.uint8], stops: npt.NDArray[np.int64]) -> None:
        self.text, self.stops = text, stops  # the ids end to end, and where each ends

    @classmethod
    def pack(cls, ids: Sequence[bytes]) -> Self:
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return cls(np.frombuffer(b"".join(ids), np.uint8), np.cumsum(lengths))

    def take(self, which: npt.NDArray[np.int64]) -> list[bytes]:
        """The ids at these positions."""
        text, stops = self.text.data, self.stops
        starts = np.where(which > 0, stops[which - 1], 0)
        return [bytes(text[a:b]) for a, b in zip(starts.tolist(), stops[which].tolist(), strict=True)]


def normalise(values: Iterable[Any]) -> Ids:
    """[n] normalised ids as UTF-8 bytes; b"" where there is none. Normalising twice changes nothing.

    Text may be str or UTF-8 bytes; whole floats lose their ".0"; None and NaN are missing.
    """
    found = _normalise(values)
    out = np.empty(len(found), dtype=object)
    out[:] = found
    return out


def prepare(values: Iterable[Any]) -> Prepared:
    """Distinct normalised ids with the rows they stand in; repeated and missing ones are counted and left out."""
    found = _normalise(values)
    first = dict(zip(reversed(found), range(len(found) - 1, -1, -1), strict=True))  # the first row of an id comes last
    first.pop(b"", None)
    missing = found.count(b"")
    rows = np.sort(np.fromiter(first.values(), np.int64, len(first)))
    if len(rows) == len(found):
        return Prepared(found, rows, 0, 0)
    return Prepared([found[i] for i in rows.tolist()], rows, len(found) - missing - len(rows), missing)


def order(ids: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Positions of normalised ids, in the order of their bytes."""
    if ids and max(map(len, ids)) <= _LONGEST:  # one long id would make NumPy's column of all of them as wide
        return np.argsort(np.array(ids, dtype=np.bytes_)).astype(np.int64)  # pads with zeros, and no id contains one
    return np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)


def describe_formats(values: Iterable[Any]) -> dict[str, int]:
    """Shapes of ids as they were written, such as "AA-999999", with their rows, most frequent first.

    A stands for an upper-case letter, a for a lower-case or uncased one, 9 for a digit. What fewer than 10 rows have
    in common, and all beyond the eighth, is "other".
    """
    signs: Counter[str] = Counter()
    for texts in _texts(values):
        joined = _joined(texts)
        signs.update(texts if joined is None else joined.translate(_SIGNS).decode().split(_BREAK))
    counts: Counter[str] = Counter()
    for text, n in signs.items():
        if text:
            counts[_shape(text)] += n
    shown = {shape: n for shape, n in counts.most_common(MAX_FORMATS) if n >= MIN_ROWS}
    rest = counts.total() - sum(shown.values())
    return shown | ({OTHER: rest} if rest else {})


def say_formats(formats: Mapping[str, int]) -> str:
    """`'AA999999' (70%), 'aa-999' (30%)`, for a message."""
    total = sum(formats.values()) or 1
    named = [
        f"{repr(shape) if shape != OTHER else 'other shapes'} ({n / total:.0%})"
        for shape, n in sorted(formats.items(), key=lambda item: -item[1])
    ]
    return ", ".join(named[:4]) or "none at all"


def _texts(values: Iterable[Any]) -> Iterator[list[str]]:
    """The values as text, a good many at a time."""
    rows = values if isinstance(values, list | np.ndarray) else list(values)
    for start in range(0, len(rows), _MANY):
        yield list(map(_text, rows[start : start + _MANY]))


def _joined(texts: list[str]) -> bytes | None:
    """Texts in one, line by line, to be worked on at C speed: if they are ASCII and have no lines themselves."""
    joined = _BREAK.join(texts)
    return joined.encode() if joined.isascii() and joined.count(_BREAK) == len(texts) - 1 else None


def _normalise(values: Iterable[Any]) -> list[bytes]:
    found: list[bytes] = []
    for texts in _texts(values):
        joined = _joined(texts)
        found += map(_one, texts) if joined is None else joined.translate(_LOWER, _DROPPED).split(_BREAK.encode())
    return found


def _one(text: str) -> bytes:
    if text.isascii():
        return text.translate(_ASCII).lower().encode()
    while True:  # a character that falls away can let its neighbours compose
        folded = unicodedata.normalize("NFKC", text).casefold()
        plain = unicodedata.normalize("NFKC", "".join(map(_character, folded)))
        if plain == text:
            return plain.encode("utf-8", "replace")
        text = plain


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        return str(int(value)) if np.isfinite(value) and value == int(value) else str(value)
    text = str(value)
    return "" if text in ("<NA>", "NaT", "--") and not isinstance(value, int) else text


@functools.lru_cache(maxsize=4096)
def _character(character: str) -> str:
    """What is left of one character after NFKC and casefold."""
    if character == SEPARATOR:
        return character
    if character.isspace() or unicodedata.category(character) in ("Pd", "Cc", "Cf", "Zl", "Zp", "Zs"):
        return ""
    digit = unicodedata.digit(character, None)
    return character if digit is None else str(digit)


_ASCII = {code: None for code in range(128) if not _character(chr(code))}


def _shape(text: str) -> str:
    short = text[:_LONGEST] + ("…" if len(text) > _LONGEST else "")
    return "".join(map(_sign, short.replace(SEPARATOR, " + ")))


def _sign(character: str) -> str:
    if character.isdigit():
        return "9"
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return character if (character.isascii() and character.isprintable()) or character == "…" else "?"


# the same by whole columns: what bytes become, and which fall away
_LOWER = bytes(range(256)).lower()
_DROPPED = bytes(code for code in _ASCII if chr(code) != _BREAK)
_SIGNS = bytes(ord(_sign(chr(code))) if chr(code) not in (SEPARATOR, _BREAK) else code for code in range(256))
