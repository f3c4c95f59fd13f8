"""Ids that people wrote: one form, honest counts, and shapes instead of values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednb.protocols import ids
from fednb.protocols.ids import SEPARATOR, describe_formats, normalise, prepare, say_formats


@pytest.mark.parametrize(
    "written",
    ["ZZ123456789", "zz123456789", "ZZ 123 456 789", "zz-123-456-789", " ZZ 123456789 ", "ＺＺ１２３４５６７８９"]
    + ["ZZ\u00a0123\u2013456\u200b789", "zz\t123456789\n", "ZZ١٢٣٤٥٦٧٨٩", b"zz-123456789"],
)
def test_spelling_does_not_tell_ids_apart(written: str | bytes) -> None:
    assert normalise([written])[0] == b"zz123456789"


def test_leading_zeros_and_other_signs_tell_ids_apart() -> None:
    assert len(set(normalise(["0012", "12", "1.2", "1/2", "1_2", "12a"]))) == 6


def test_numbers_are_ids_too_and_a_whole_float_is_no_decimal() -> None:
    assert list(normalise([17, 17.0, np.int64(17), np.float64(17.0), "17"])) == [b"17"] * 5


def test_what_is_missing_is_empty() -> None:
    assert list(normalise([None, float("nan"), np.float64("nan"), "", "  ", "-"])) == [b""] * 6


def test_the_parts_of_a_composite_id_stay_apart() -> None:
    a, b = normalise([f"1{SEPARATOR}23", f"12{SEPARATOR}3"])
    assert a != b and a == b"1\x1f23"


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise([text])
    assert normalise(once)[0] == once[0]


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126)))
def test_the_quick_way_for_ascii_is_the_long_way(text: str) -> None:
    assert normalise([text])[0] == normalise([text + "\u200b"])[0]


@settings(max_examples=60)
@given(
    st.lists(st.text(alphabet=st.characters(max_codepoint=127)) | st.sampled_from(["A\nb", "a\x1fB", " ", "x" * 45]))
)
def test_whole_columns_are_read_like_single_values(values: list[str]) -> None:
    quick = list(normalise(values)), describe_formats(values * 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "_joined", lambda texts: None)
        assert quick == (list(normalise(values)), describe_formats(values * 10))


def test_repeated_and_missing_ids_are_counted_and_left_out() -> None:
    found = prepare(["b", "A", "a", None, "B ", "c"])
    assert found.ids.tolist() == [b"b", b"a", b"c"]
    assert found.rows.tolist() == [0, 1, 5]
    assert (found.duplicates, found.missing) == (2, 1)


def test_formats_are_shapes_and_rare_ones_have_no_name() -> None:
    ids = [f"ZZ {n}" for n in range(100, 130)] + [f"zz-{n}" for n in range(100, 112)] + ["VERY-odd-4711"]
    assert describe_formats(ids) == {"AA 999": 30, "aa-999": 12, "other": 1}


def test_formats_quote_no_id() -> None:
    ids = [f"Müller {n:04d}" for n in range(50)] + ["x" * 500] * 20
    said = describe_formats(ids)
    assert "Aaaaaa 9999" in said and not any("ller" in shape for shape in said)
    assert max(map(len, said)) <= 45


def test_formats_in_words() -> None:
    assert say_formats({"AA 999": 30, "other": 10}) == "'AA 999' (75%), other shapes (25%)"
    assert say_formats({}) == "none at all"


@given(st.lists(st.text(max_size=3) | st.sampled_from(["ab" * 20, "ab" * 21])))
def test_ids_are_sorted_by_their_bytes(values: list[str]) -> None:
    found = list(normalise(values))
    assert [found[i] for i in ids.order(found)] == sorted(found)
    assert ids.TextColumn.pack(found).take(np.arange(len(found))[::-1]) == found[::-1]
