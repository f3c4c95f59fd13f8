"""A dry run: the cell runs here on what the party invents, and says that nothing of it is real."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from fednb.errors import DataError, PeerLost
from fednb.federation import messages as m
from fednb.federation.rehearsal import Rehearsal

WAIT = 60.0


class Parties:
    """What a rehearsal needs of a CellClient: who is there, and invented rows."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def check(self, members: Any) -> None:
        if "nobody" in members:
            raise PeerLost("nobody is down")

    def mock(self, member: str, table: str) -> pd.DataFrame:
        self.asked.append((member, table))
        if table == "secret":
            raise DataError(f"{member} has no table 'secret'.")
        return pd.DataFrame({"sme_id": ["mock0", "mock1"], "income": [7, 8]})


def said(run: Rehearsal) -> list[tuple[str, Any]]:
    events = []
    while run.unfinished:
        got = run.next(WAIT)
        assert got is not None, f"nothing came for {WAIT} s after {events}"
        events.append(got)
    return events


def test_the_cell_runs_on_invented_rows_and_says_so_first() -> None:
    parties = Parties()
    run = Rehearsal(parties, ["bank", "agency"], "t = fed.load('loans')\nprint('in all', t['income'].sum())")  # type: ignore[arg-type]
    events = said(run)
    for member in ("bank", "agency"):
        texts = [event.text for who, event in events if who == member and isinstance(event, m.Stream)]
        assert f"INVENTED ROWS: no number below is real, and {member} has run nothing" in texts[0]
        assert "in all 15" in "".join(texts[1:])
        assert run.done[member].status == "ok" and run.done[member].receipt is None
    assert sorted(parties.asked) == [("agency", "loans"), ("bank", "loans")]
    assert run.invented and {event.cell for _, event in events} == {run.cell}


def test_it_can_be_interrupted() -> None:
    run = Rehearsal(Parties(), ["bank"], "import time\nprint('it begins', flush=True)\nwhile True: time.sleep(0.05)")  # type: ignore[arg-type]
    run.interrupt()
    said(run)
    assert run.done["bank"].status == "interrupted"


@pytest.mark.parametrize(
    ("code", "why"), [("fed.load('secret')", "no table 'secret'"), ("!ls", "only approve plain Python")]
)
def test_what_an_owner_could_not_be_asked_for_is_refused(code: str, why: str) -> None:
    run = Rehearsal(Parties(), ["bank"], code)  # type: ignore[arg-type]
    said(run)
    assert run.done["bank"].status == "refused" and why in run.done["bank"].reason


def test_a_party_that_is_down_is_told_at_once() -> None:
    with pytest.raises(PeerLost):
        Rehearsal(Parties(), ["nobody"], "1")  # type: ignore[arg-type]
