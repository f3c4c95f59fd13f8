"""Marked values in every row of both parties, and a search for them in all that anybody else ever had.

Real processes: what they wrote, printed, and hold in memory at the end. Then the same job over real sockets inside
this process, where every message that any member opens is looked at.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.federation import launch
from fednb.models import (
    OwnLogisticRegression,
    Scorecard,
    VerticalLinearRegression,
    VerticalLogisticRegression,
    WoeBinning,
)
from fednb.wire import codec
from fednb.wire.switchboard import Talk

ROWS = 90  # at each party
COMMON = 80
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = 10
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
"""


SPREAD = 9e-7  # so little that all doubles of a party share their first six bytes, and their first nine digits


def _mark(value: float) -> float:
    """The least double with the same first six bytes."""
    (mark,) = struct.unpack(">d", struct.pack(">d", value)[:6] + b"\0\0")
    return float(mark)


MARKS = {"bank": _mark(98765.43215), "agency": _mark(87654.32105)}  # every value of a party begins like its mark


class Canaries:
    """Two tables that are marked in every row, and how a mark would look if it escaped."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        common = [f"zzcommon{k:04d}qq" for k in range(COMMON)]
        self.ids = {party: common + [f"zz{party}only{k:04d}qq" for k in range(ROWS - COMMON)] for party in MARKS}
        self.values = {party: mark + SPREAD * rng.random((ROWS, 2)) for party, mark in MARKS.items()}
        score = sum(self.values[party][:, 0] - mark for party, mark in MARKS.items())
        self.label = (score + SPREAD / 2 * rng.random(ROWS) > np.median(score)).astype(int)

    def frame(self, party: str) -> pd.DataFrame:
        names = {"bank": ["income", "debt"], "agency": ["turnover", "delay"]}[party]
        frame = pd.DataFrame(self.values[party], columns=names)
        frame.insert(0, "sme_id", self.ids[party])
        if party == "bank":
            frame["default"] = self.label
        return frame

    def marks(self, owner: str, *, common_ids: bool) -> list[bytes]:
        """Of the owner's values as text and as doubles, and of its ids: all, or those that nobody else has."""
        double = struct.pack(">d", MARKS[owner])[:6]
        ids = [f"zz{owner}only"] + (["zzcommon"] if common_ids else [])
        texts = [repr(MARKS[owner])[:10], *ids, *(identifier.upper() for identifier in ids)]
        found = [double, double[::-1], *(text.encode() for text in texts)]
        return found + [text.encode("utf-16-le") for text in texts]


def search(haystack: bytes, needles: Sequence[bytes]) -> list[bytes]:
    """Those needles that stand in the haystack."""
    return [needle for needle in needles if needle in haystack]


def job(federation: fednb.Federation) -> None:
    """Everything an analyst would do."""
    frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
    train, test = frame.split(test_size=0.5, random_state=0)
    model = VerticalLogisticRegression(max_iter=2).fit(train, y="bank.default")
    print(model, model.view().plain(), model.evaluate(frame), federation.runs(), federation.tables())
    model.predict_proba(test).save("scored").summary()
    binning = WoeBinning(bins=4).fit(frame, y="bank.default")
    coded = binning.transform(frame)
    weighed = VerticalLogisticRegression(max_iter=2, standardize=False, clip=None).fit(coded, y="bank.default")
    card = Scorecard().fit(binning, weighed, federation)
    print(card.table(), card.to_json())
    card.reasons(test, "reasons")
    linear = VerticalLinearRegression(max_iter=2).fit(train, y="bank.default")
    print(linear, OwnLogisticRegression().fit(train, y="bank.default").evaluate(frame))


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def file(tmp_path: Path, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    canaries.frame("bank").to_csv(tmp_path / "loans.csv", index=False)
    canaries.frame("agency").to_csv(tmp_path / "invoices.csv", index=False)
    path = tmp_path / "federation.toml"
    path.write_text(FILE)
    return path


def memory(pid: int) -> Iterator[bytes]:
    """All readable private memory of a process, without the pages that were never written."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            span, mode, *_ = line.split()
            if not mode.startswith("rw"):
                continue
            start, end = (int(bound, 16) for bound in span.split("-"))
            try:
                mem.seek(start)
                pages = np.frombuffer(mem.read(end - start), dtype=np.uint8).reshape(-1, 4096)
                yield pages[pages.any(axis=1)].tobytes()
            except (OSError, ValueError, OverflowError):
                continue  # a guard page, or gone meanwhile


def test_the_search_finds_what_is_there(canaries: Canaries) -> None:
    for party, other in (("bank", "agency"), ("agency", "bank")):
        frame, marks = canaries.frame(party), canaries.marks(party, common_ids=False)
        for column in frame.columns.drop(["sme_id", "default"], errors="ignore"):
            for value in frame[column].tolist():
                assert search(repr(value).encode(), marks), "text"
                assert search(struct.pack("<d", value), marks) and search(struct.pack(">d", value), marks)
        assert frame[column].nunique() == ROWS
        assert not search(canaries.frame(other).to_csv().encode(), marks)
    held = b"".join(memory(os.getpid()))
    assert search(held, marks), "this process holds them"


@pytest.mark.slow
def test_no_member_ever_holds_a_value_or_an_unmatched_id_of_another(
    file: Path, canaries: Canaries, capsys: pytest.CaptureFixture[str]
) -> None:
    # the search runs here, in the analyst's process, which has the needles: so the analyst is judged by what it printed
    with launch.up(file) as running, fednb.connect(running) as federation:
        job(federation)
        held = {name: b"".join(memory(process.pid)) for name, process in running.members.items()}
        written: dict[str, bytes] = defaultdict(bytes)
        for path in running.root.rglob("*"):
            if path.is_file():
                written[path.relative_to(running.root).parts[0]] += path.read_bytes()
    printed = capsys.readouterr()
    bank, agency = (canaries.marks(party, common_ids=True) for party in ("bank", "agency"))
    assert search(held["agency"], agency), "the owner itself holds its rows, so the search works on a process"
    for member in ("hub", "coordinator"):
        assert search(held[member], bank + agency) == [], f"memory of {member}"
        assert search(written[member], bank + agency) == [], f"files of {member}"
    for member, other in (("bank", "agency"), ("agency", "bank")):
        private = canaries.marks(other, common_ids=False)
        assert search(held[member], private) == [], f"memory of {member}"
        assert search(written[member], private) == [], f"files of {member}"
    assert search(written["analyst"] + (printed.out + printed.err).encode(), bank + agency) == []


def test_no_message_that_a_member_opens_holds_a_value_or_an_unmatched_id_of_another(
    canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, list[bytes]] = defaultdict(list)
    deliver = Talk.deliver

    def recording(self: Talk, frames: Sequence[codec.Frame]) -> None:
        opened[self.board.me] += [bytes(frame) for frame in frames]
        deliver(self, frames)

    monkeypatch.setattr(Talk, "deliver", recording)
    tables: dict[str, dict[str, Any]] = {
        "bank": {"loans": canaries.frame("bank")},
        "agency": {"invoices": canaries.frame("agency")},
    }
    with fednb.simulate(tables, decryption_quota=10) as federation:
        job(federation)
    assert {"bank", "agency", "coordinator", "analyst"} <= set(opened)
    bank, agency = (canaries.marks(party, common_ids=True) for party in ("bank", "agency"))
    for member in ("coordinator", "analyst"):
        assert search(b"\n".join(opened[member]), bank + agency) == [], member
    for member, other in (("bank", "agency"), ("agency", "bank")):
        # not even matched ids cross: both know them already, and each finds its own
        assert search(b"\n".join(opened[member]), canaries.marks(other, common_ids=True)) == [], member
