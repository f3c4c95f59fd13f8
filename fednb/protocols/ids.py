"""Ids as different companies write them: one form to compare, and words for how they differ.

    "zz-123-456-789"   "ZZ 123 456 789"   " ＺＺ１２３４５６７８９ "   ->   b"zz123456789"

Case, spaces, dashes, invisible characters and the script of digits are spelling. Everything else tells two ids
apart, leading zeros included: a number that lost its zeros in a spreadsheet must be repaired by its owner.
"""

from __future__ import annotations

import functools
import itertools
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
Column = np.ndarray[Any, np.dtype[Any]]  # [n] of bytes, as wide as the longest or, where one is very long, objects


@dataclass(frozen=True)
class Prepared:
    """A party's ids, ready to be compared."""

    ids: Column  # distinct normalised ids, in the order of their first row
    rows: npt.NDArray[np.int64]  # [len(ids)] position of that row
    duplicates: int  # rows whose id an earlier row has
    missing: int  # rows without an id

    @property
    def read(self) -> int:
        """Rows that were looked at."""
        return len(self.ids) + self.duplicates + self.missing

    def take(self, which: npt.NDArray[np.int64]) -> list[bytes]:
        """The ids at these positions of `ids`."""
        found: list[bytes] = self.ids[which].tolist()
        return found

    def by_id(self, which: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """These positions, in the order of their ids' bytes."""
        return which[order(self.ids[which])]


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
    return _objects(list(itertools.chain.from_iterable(_normalised(values))))


def prepare(values: Iterable[Any]) -> Prepared:
    """Distinct normalised ids with the rows they stand in; repeated and missing ones are counted and left out."""
    column = _column(_normalised(values))
    by_id = np.argsort(column, kind="stable")  # of equal ids the first row comes first
    ordered = column[by_id]
    is_first = np.ones(len(column), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    missing = int(np.count_nonzero(column == b""))
    if missing:
        is_first[0] = False  # nothing sorts before the empty id
    rows = np.sort(by_id[is_first]).astype(np.int64)
    if len(rows) == len(column):
        return Prepared(column, rows, 0, 0)
    return Prepared(column[rows], rows, len(column) - missing - len(rows), missing)


def order(ids: Sequence[bytes] | Column) -> npt.NDArray[np.int64]:
    """Positions of normalised ids, in the order of their bytes."""
    return np.argsort(ids if isinstance(ids, np.ndarray) else _column([ids])).astype(np.int64)


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


def _column(ids: Iterable[Sequence[bytes]]) -> Column:
    """Normalised ids in one array: padded with zeros, which no id contains; one very long id would widen all."""
    found: list[Column] = []
    for some in ids:
        wide = max(map(len, some), default=0) > _LONGEST
        found.append(_objects(some) if wide else np.array(some, dtype=np.bytes_))
    if any(part.dtype == object for part in found):
        found = [_objects(part.tolist()) for part in found]
    return np.concatenate(found) if found else np.empty(0, dtype=np.bytes_)


def _objects(ids: Sequence[bytes]) -> Ids:
    out = np.empty(len(ids), dtype=object)
    out[:] = ids
    return out


def _texts(values: Iterable[Any]) -> Iterator[list[str]]:
    """The values as text, a good many at a time."""
    rows = iter(values)
    while some := list(map(_text, itertools.islice(rows, _MANY))):
        yield some


def _joined(texts: list[str]) -> bytes | None:
    """Texts in one, line by line, to be worked on at C speed: if they are ASCII and have no lines themselves."""
    joined = _BREAK.join(texts)
    return joined.encode() if joined.isascii() and joined.count(_BREAK) == len(texts) - 1 else None


def _normalised(values: Iterable[Any]) -> Iterator[list[bytes]]:
    """Normalised ids, a good many at a time."""
    for texts in _texts(values):
        joined = _joined(texts)
        split = None if joined is None else joined.translate(_LOWER, _DROPPED).split(_BREAK.encode())
        yield list(map(_one, texts)) if split is None else split


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
