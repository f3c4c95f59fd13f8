"""What the audit log and the receipts say of cells and runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fednb.errors import FednbError, UnexpectedMessage
from fednb.federation import messages as m
from fednb.federation.receipts import Book, table, values_in
from fednb.policy import audit
from fednb.policy.audit import AuditLog


def test_values_are_counted_by_entries_and_of_raw_bytes_by_rows() -> None:
    assert values_in(np.zeros((3, 4))) == 12
    assert values_in(np.zeros((3, 512), dtype=np.uint8)) == 3
    assert values_in({"auc": 0.7, "curve": np.zeros(5), "none": None}) == 6
    assert values_in(m.Go(3)) == 1


def test_a_cells_output_is_counted_kept_and_in_its_receipt(tmp_path: Path) -> None:
    book = Book("bank", AuditLog(tmp_path, "bank")).cells("ann")
    book.begins(m.Execute("c1", "secret_code()"), "allowed", "mode open")
    book.passes(m.Stream("c1", "stdout", "hello"))
    book.passes(m.Stream("c1", "stdout", "world"))
    book.passes(m.Captured("c1", "x", m.ArrayValue(np.zeros(4))))
    book.passes(m.Stream("other", "stdout", "not of this conversation's cells"))
    done = book.passes(m.CellDone("c1", "ok"))
    assert isinstance(done, m.CellDone) and done.receipt is not None
    sizes = {each.what: (each.messages, each.bytes) for each in done.receipt.crossed}
    assert sizes == {"Stream": (2, 10), "Captured": (1, 32)}
    begun, ended = audit.entries(tmp_path)
    assert audit.text_of(tmp_path, begun["code"]) == "secret_code()"
    assert audit.text_of(tmp_path, ended["output"]) == "hello\nworld\n-o x: 32 bytes"
    assert b"secret_code" not in (tmp_path / "log.jsonl").read_bytes()
    assert done.receipt.head is not None and done.receipt.head.hash == ended["hash"]
    assert b"c1" in msgspec.json.encode(done.receipt)


def test_a_second_cell_of_the_same_id_cannot_hide_what_the_first_says(tmp_path: Path) -> None:
    book = Book("bank", AuditLog(tmp_path, "bank")).cells("ann")
    book.begins(m.Execute("c1", "1"), "allowed", "mode open")
    with pytest.raises(UnexpectedMessage):
        book.begins(m.Execute("c1", "2"), "allowed", "mode open")
    book.passes(m.Stream("c1", "stdout", "rows"))
    book.close()
    ended = list(audit.entries(tmp_path))[-1]
    assert ended["status"] == "abandoned" and audit.text_of(tmp_path, ended["output"]) == "rows"


def test_a_cell_that_cannot_be_written_down_does_not_begin(tmp_path: Path) -> None:
    book = Book("bank", AuditLog(tmp_path / "audit", "bank")).cells("ann")
    (tmp_path / "audit" / "log.jsonl").mkdir()
    with pytest.raises(FednbError, match="cannot write its audit log"):
        book.begins(m.Execute("c1", "1"), "allowed", "mode open")


def test_a_receipt_under_which_nothing_left_says_so() -> None:
    shown = table([m.Receipt("bank", "r1", "cancelled", "protocol psi")])
    assert shown["what"].tolist() == ["nothing"] and shown["bytes"].tolist() == [0]
    assert len(table([])) == 0
