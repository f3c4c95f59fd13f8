"""The audit log, attacked by whoever can write to its folder, and by whoever kills its writer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fednb.errors import ConfigError, DataError, FednbError
from fednb.policy import audit
from fednb.policy.audit import AuditLog

Change = Callable[[list[bytes]], list[bytes]]


def filled(folder: Path, entries: int = 8) -> AuditLog:
    log = AuditLog(folder, "bank")
    for number in range(entries):
        log.append("cell", by="analyst", number=number, code=log.keep(f"print({number})"))
    return log


def test_a_log_that_nobody_touched_verifies(tmp_path: Path) -> None:
    filled(tmp_path)
    found = audit.verify(tmp_path, "bank")
    assert found.problems == [] and (found.entries, found.torn, found.erased) == (8, 0, 0)
    assert audit.verify(tmp_path / "none", "bank").problems == []


CHANGES: dict[str, Change] = {
    "edit": lambda lines: [*lines[:3], lines[3].replace(b"analyst", b"anybody"), *lines[4:]],
    "delete": lambda lines: lines[:3] + lines[4:],
    "delete the first": lambda lines: lines[1:],
    "insert a copy": lambda lines: [*lines[:4], lines[3], *lines[4:]],
    "swap": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "truncate": lambda lines: lines[:6],
    "truncate within a line": lambda lines: [*lines[:7], lines[7][:20]],
    "truncate all": lambda lines: [],
    "add a blank": lambda lines: [*lines[:3], lines[3].replace(b",", b", ", 1), *lines[4:]],
    "garbage": lambda lines: [*lines, b"\xff\xfe{\n"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_found(tmp_path: Path, change: str) -> None:
    filled(tmp_path)
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"".join(CHANGES[change](file.read_bytes().splitlines(keepends=True))))
    assert audit.verify(tmp_path, "bank").problems


def rewritten(folder: Path, entries: int) -> None:
    """What an owner with full rights can do: a whole other log with a head that fits."""
    for name in ("log.jsonl", "head"):
        (folder / name).unlink()
    filled(folder, entries)


@pytest.mark.parametrize("entries", [3, 8, 20])
def test_a_log_rewritten_with_its_head_is_found_by_the_head_that_a_peer_keeps(tmp_path: Path, entries: int) -> None:
    ours, peer = filled(tmp_path / "bank"), AuditLog(tmp_path / "agency", "agency")
    peer.witness(ours.head())
    held = audit.witnessed(tmp_path / "agency" / "witnessed.jsonl")
    ours.append("cell")
    assert audit.verify(tmp_path / "bank", "bank", held).problems == []
    assert audit.verify(tmp_path / "bank", "bank", held).witnessed == 1
    rewritten(tmp_path / "bank", entries)
    assert audit.verify(tmp_path / "bank", "bank").problems == []
    (problem,) = audit.verify(tmp_path / "bank", "bank", held).problems
    assert "another member holds a signed entry 7" in problem


def test_a_log_that_was_cut_is_not_written_over(tmp_path: Path) -> None:
    filled(tmp_path)
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.raises(ConfigError, match="it once had 8, and has 5"):
        AuditLog(tmp_path, "bank").append("cell")


def test_texts_can_be_erased_and_the_chain_stays(tmp_path: Path) -> None:
    log = filled(tmp_path)
    digest = str(list(audit.entries(tmp_path))[2]["code"])
    assert audit.text_of(tmp_path, digest) == "print(2)"
    log.erase(digest, "asked by the person concerned")
    assert audit.text_of(tmp_path, digest) is None
    found = audit.verify(tmp_path, "bank")
    assert found.problems == [] and found.erased == 1
    assert not any(b"print(2)" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(DataError):
        log.erase(digest, "again")
    with pytest.raises(DataError):
        log.erase("../log.jsonl", "a path is no digest")


def test_a_text_that_is_gone_or_changed_without_an_entry_is_found(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    first, second = (tmp_path / "blobs" / str(entry["code"]) for entry in audit.entries(tmp_path))
    first.unlink()
    second.write_bytes(second.read_bytes().replace(b"print", b"nprit"))
    assert len(audit.verify(tmp_path, "bank").problems) == 2


def test_two_processes_and_threads_of_one_member_write_one_chain(tmp_path: Path) -> None:
    first, second = AuditLog(tmp_path, "bank"), AuditLog(tmp_path, "bank")
    for _ in range(5):
        first.append("agent")
        second.append("command")
    assert audit.verify(tmp_path, "bank").problems == [] and second.head().n == 9


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 1)
    (tmp_path / "audit" / "log.jsonl").unlink()
    (tmp_path / "audit" / "log.jsonl").mkdir()
    with pytest.raises(FednbError, match="cannot write its audit log"):
        log.append("cell")


def test_everything_is_for_the_owner_alone(tmp_path: Path) -> None:
    filled(tmp_path / "audit").witness(audit.Head("agency", 0, "0" * 64))
    for path in (tmp_path / "audit").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


WRITER = """
import sys
import threading
from pathlib import Path
from fednb.policy.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), "bank")
print("ready", flush=True)
while True:
    n = log.append("cell", code=log.keep("x" * 100), pad="y" * 5000).n
    print(n, flush=True)
"""


def test_a_writer_killed_at_random_points_leaves_a_chain_that_verifies(tmp_path: Path) -> None:
    chance = random.Random(4)
    acknowledged = -1
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(2, 40)):
                line = writer.stdout.readline()
                assert line, "the writer failed"
            os.kill(writer.pid, signal.SIGKILL)
            numbers = [int(each) for each in [line, *writer.stdout] if each.strip().isdigit()]
        acknowledged = max([acknowledged, *numbers])
        found = audit.verify(tmp_path, "bank")
        assert found.problems == [] and found.entries > acknowledged
    AuditLog(tmp_path, "bank").append("agent started")
    assert audit.verify(tmp_path, "bank").problems == []


def test_every_torn_last_line_is_recognised_and_the_next_entry_follows(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    file = tmp_path / "log.jsonl"
    whole, head = file.read_bytes(), (tmp_path / "head").read_bytes()
    filled(tmp_path, 1)
    longer = file.read_bytes()
    for cut in range(len(whole), len(longer) + 1, 7):  # killed before the head was written
        file.write_bytes(longer[:cut])
        (tmp_path / "head").write_bytes(head)
        found = audit.verify(tmp_path, "bank")
        assert found.problems == [] and found.torn == (cut - len(whole) if cut < len(longer) else 0)
        AuditLog(tmp_path, "bank").append("agent started")
        assert audit.verify(tmp_path, "bank").problems == []


def test_entries_that_nobody_waits_for_get_to_the_disk_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watching(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watching)
    log = AuditLog(tmp_path, "bank")
    blob = log.keep("x = 1", wait=False)
    log.append("cell", wait=False, code=blob)
    for _ in range(1000):
        if b'"n":0' in (tmp_path / "head").read_bytes():
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("the head never came after the entry")
    assert {"log.jsonl", blob} < set(synced)
    assert audit.verify(tmp_path, "bank").problems == []


def test_a_log_whose_writer_ends_before_its_first_head_is_not_taken_for_tampered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditLog, "_sync", lambda self: None)  # killed before the disk had it
    AuditLog(tmp_path, "bank").append("agent started", wait=False)
    found = audit.verify(tmp_path, "bank")
    assert found.entries == 1 and found.problems == []
    (tmp_path / "head").unlink()
    assert audit.verify(tmp_path, "bank").problems == ["its head is missing"]
    with pytest.raises(ConfigError, match="has lost its head"):  # a new one would cover that up
        AuditLog(tmp_path, "bank").append("agent started")


def test_what_nobody_waited_for_and_never_got_to_the_disk_stops_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    log = filled(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        log.append("cell", wait=False)
        for _ in range(1000):
            if log._failure is not None:
                break
            threading.Event().wait(0.01)
    with pytest.raises(FednbError, match="cannot write its audit log"):
        log.append("cell", wait=False)


def test_a_head_that_follows_later_is_not_behind_another_process(tmp_path: Path) -> None:
    first, second = AuditLog(tmp_path, "bank"), AuditLog(tmp_path, "bank")
    first.append("cell", wait=False)
    second.append("command")
    first._sync()
    assert audit._mark(tmp_path) == audit._Mark(1, second.head().hash)
