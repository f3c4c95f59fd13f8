"""Cells that an owner approves: real sandboxed kernels behind a desk, and the whole way with real members."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from fednb import cli, config
from fednb.config import TableConfig
from fednb.errors import ConfigError, DataError, LinkError
from fednb.federation import approved, launch
from fednb.federation import messages as m
from fednb.federation.asks import AskDesk
from fednb.federation.cells import CellClient, CellEvent
from fednb.federation.process import short_folder
from fednb.federation.receipts import Book
from fednb.federation.tables import TableStore
from fednb.policy import audit, sandbox
from fednb.policy.approvals import ApprovalStore
from fednb.policy.audit import AuditLog
from fednb.policy.mode import MemberPolicy
from fednb.policy.sandbox import Sandbox
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome
from fednb.wire.loopback import Network

SECONDS = 60.0
LOANS = pd.DataFrame({"sme_id": [f"{n:03d}" for n in range(40)], "income": range(40), "default": [0, 1] * 20})

if not any(not sandbox.missing(backend) for backend in sandbox.BACKENDS):
    pytest.skip("no sandbox works here, so no cell can be approved", allow_module_level=True)


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


class Bench:
    """A desk at "bank", its files, and an analyst."""

    def __init__(self, folder: Path) -> None:
        self.network = Network({"bank": "party", "agency": "party", "analyst": "analyst", "other": "analyst"})
        self.bank, self.analyst = self.network.endpoint("bank"), self.network.endpoint("analyst")
        self.tables = TableStore.of_frames("bank", {"loans": LOANS, "secret": LOANS})
        self.store = ApprovalStore(folder / "approvals")
        self.audit = folder / "audit"
        self.run_folder = short_folder()
        self.policy = MemberPolicy("bank", approval=True)
        self.desk = self.open()
        self.cells = CellClient(self.analyst)

    def open(self, seconds: float = SECONDS) -> AskDesk:
        return AskDesk(
            self.bank,
            self.policy,
            self.tables,
            self.store,
            Sandbox(sandbox.find()),
            Book("bank", AuditLog(self.audit, "bank")),
            declared={"loans": TableConfig("loans", mock={"income": (7, 8)})},
            run_folder=self.run_folder,
            seconds=seconds,
        )

    def ask(self, code: str, reason: str = "to count", cells: CellClient | None = None) -> list[CellEvent]:
        run = (cells or self.cells).ask(["bank"], code, reason)
        events = []
        while run.unfinished:
            got = run.next(SECONDS)
            assert got is not None, f"nothing came for {SECONDS} s after {events}"
            events.append(got[1])
        return events

    def approve(self, id: str, **ticket: object) -> None:
        ticket = {"uses": 1, "until": time.time() + 600, **ticket}
        self.store.change(id, {"decision": "pending"}, decision="approved", **ticket)

    def newest(self) -> str:
        return self.store.all()[-1].id

    def close(self) -> None:
        self.desk.close()
        self.cells.close()
        for endpoint in (self.analyst, self.bank):
            endpoint.close()
        assert [path.name for path in self.run_folder.iterdir()] == [], "no snapshot and no socket stays behind"
        self.run_folder.rmdir()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def end(events: list[CellEvent]) -> m.CellDone:
    assert isinstance(events[-1], m.CellDone)
    return events[-1]


def printed(events: list[CellEvent]) -> str:
    return "".join(e.text for e in events if isinstance(e, m.Stream))


def test_nothing_runs_before_it_is_approved_and_the_same_cell_is_one_request(bench: Bench) -> None:
    (first,) = bench.ask("print(len(fed.load('loans')))")
    assert isinstance(first, m.CellDone) and first.status == "waiting" and bench.newest() in first.reason
    (again,) = bench.ask("# only a comment more\nprint( len(fed.load('loans')) )")
    assert end([again]).reason == first.reason and len(bench.store.all()) == 1
    threading.Event().wait(1.2)  # two looks of the desk
    assert bench.store.all()[0].state == "pending"


def test_an_approved_cell_runs_once_waits_in_quarantine_and_comes_back_after_restarts(bench: Bench) -> None:
    code = "t = fed.load('loans')\nprint(t['income'].sum())\nt.tail(1)[['income']]"
    bench.ask(code)
    id = bench.newest()
    bench.approve(id)
    until(lambda: bench.store.get(id).outcome == "quarantined")
    assert end(bench.ask(code)).status == "waiting" and "release" in end(bench.ask(code)).reason
    bench.store.change(id, {}, outcome="released")
    events = bench.ask(code)
    assert printed(events) == "780\n" and [e.data for e in events if isinstance(e, m.Display)] == [
        {"text/plain": "    income\n39      39"}
    ], "and none of the HTML, which an owner does not read"
    receipt = end(events).receipt
    assert receipt is not None and receipt.rule == f"approval {id}" and receipt.crossed

    bench.cells.close()
    bench.desk.close()
    bench.bank.close()
    bench.bank = bench.network.endpoint("bank")
    bench.desk = bench.open()
    bench.cells = CellClient(bench.analyst)
    assert printed(bench.ask(code)) == "780\n", "both ends forgot everything but the files"
    assert [each.state for each in bench.cells.asked("bank")] == ["released"]
    events_of = [entry["event"] for entry in audit.entries(bench.audit)]
    assert events_of.count("approved cell") == 1 and events_of[:1] == ["asked"]
    assert not audit.verify(bench.audit, "bank").problems


def test_an_approved_cell_has_the_tables_it_names_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key")
    code = f"""
import os
left = []
for name, what in {{
    "another table": lambda: fed.load("sec" + "ret"),
    "the key": lambda: open({str(tmp_path / "key")!r}).read(),
    "the approvals": lambda: os.listdir({str(bench.store.folder)!r}),
    "a change of the snapshot": lambda: open(os.environ["FEDNB_SNAPSHOT"] + "/loans.arrow", "r+b"),
    "an agent": lambda: os.environ["FEDNB_PIPE"],
    "a program": lambda: os.system("true") and 1 / 0,
}}.items():
    try:
        what()
        left.append(name)
    except Exception:
        pass
print(left, fed.tables(), len(fed.load("loans")), sorted(k for k in globals() if k == "earlier"))
earlier = 1
"""
    for attempt in range(2):
        bench.ask(code, f"try {attempt}")
        bench.approve(bench.newest(), at_once=True)
        until(lambda: bench.store.all()[-1].outcome == "released")
        assert printed(bench.ask(code, f"try {attempt}")) == "[] ['loans'] 40 []\n"
        code += "\n# again" + "\nNone"


def test_a_cell_runs_as_often_as_it_was_approved(bench: Bench) -> None:
    code = "import time\nprint(time.time_ns())"
    bench.ask(code)
    id = bench.newest()
    bench.approve(id, uses=2, at_once=True)
    until(lambda: bench.store.get(id).outcome == "released")
    first = printed(bench.ask(code))
    assert "runs once more" in end(bench.ask(code)).reason
    until(lambda: bench.store.get(id).outcome == "released")
    second = printed(bench.ask(code))
    assert second != first
    assert printed(bench.ask(code)) == second and bench.store.get(id).uses == 0


def test_a_denied_cell_says_why_and_may_be_asked_for_with_better_reasons(bench: Bench) -> None:
    bench.ask("fed.load('loans')")
    id = bench.newest()
    bench.store.change(id, {}, decision="denied", why="it shows rows")
    refused = end(bench.ask("fed.load('loans')"))
    assert refused.status == "refused" and "it shows rows" in refused.reason
    assert end(bench.ask("fed.load('loans')", "the owner said yes by telephone")).status == "waiting"
    assert len(bench.store.all()) == 2


def test_what_changed_after_it_was_asked_for_does_not_run(bench: Bench) -> None:
    code = "print(len(fed.load('loans')))"
    bench.ask(code)
    id = bench.newest()
    bench.tables.save("loans", LOANS.head(3), ("sme_id",), "default")
    bench.approve(id, at_once=True)
    until(lambda: bench.store.get(id).decision == "expired")
    assert "have changed" in bench.store.get(id).why and not bench.store.get(id).outcome
    again = end(bench.ask(code))
    assert again.status == "waiting" and "have changed" in again.reason and bench.newest() != id


def test_a_cell_that_never_ends_is_ended(bench: Bench) -> None:
    bench.desk.close()
    bench.bank.close()
    bench.bank = bench.network.endpoint("bank")
    bench.desk = bench.open(seconds=4.0)
    bench.ask("while True: pass")
    bench.approve(bench.newest(), at_once=True)
    until(lambda: bench.store.all()[-1].outcome == "released")
    assert end(bench.ask("while True: pass")).status == "died"


def test_a_desk_that_stops_leaves_no_kernel_and_the_cell_runs_at_the_next_start(bench: Bench) -> None:
    bench.ask("import time\nprint('begun')\ntime.sleep(3)")
    id = bench.newest()
    bench.approve(id)
    until(lambda: bench.store.get(id).outcome == "running")
    bench.desk.close()
    assert list(bench.run_folder.iterdir()) == [] and bench.store.get(id).uses == 0
    bench.bank.close()
    bench.bank = bench.network.endpoint("bank")
    bench.desk = bench.open()
    until(lambda: bench.store.get(id).outcome == "quarantined")
    assert bench.store.get(id).uses == 0


def test_requests_of_others_are_not_shown_and_parties_may_not_ask(bench: Bench) -> None:
    bench.ask("1")
    end_of_other = bench.network.endpoint("other")
    other = CellClient(end_of_other)
    assert other.asked("bank") == [] and len(bench.cells.asked("bank")) == 1
    bench.ask("1", cells=other)
    assert [each.analyst for each in bench.store.all()] == ["analyst", "other"], "nor does one get another's outputs"
    agency = bench.network.endpoint("agency")
    with pytest.raises(LinkError, match="by analysts only"):
        agency.open("bank", "asks").recv(m.CellDone, timeout=10)
    other.close()
    for endpoint in (end_of_other, agency):
        endpoint.close()


def test_what_cannot_be_asked_for_is_refused_with_the_reason(bench: Bench) -> None:
    assert "plain Python" in end(bench.ask("!ls")).reason
    assert "no table 'nothing'" in end(bench.ask("fed.load('nothing')")).reason
    bench.policy.lock()
    assert "locked" in end(bench.ask("1")).reason
    assert bench.store.all() == []


def test_invented_rows_come_with_the_owners_ranges(bench: Bench) -> None:
    made = bench.cells.mock("bank", "loans")
    assert list(made.columns) == list(LOANS.columns) and set(made["income"]) == {7, 8}
    with pytest.raises(DataError, match="no table 'nothing'"):
        bench.cells.mock("bank", "nothing")


def test_a_cell_that_cannot_be_run_is_told_and_does_not_come_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> list[CellEvent]:
        raise DataError("the disk is full")

    monkeypatch.setattr(approved, "run", fails)
    bench.ask("1")
    bench.approve(bench.newest())
    until(lambda: bench.store.all()[-1].decision == "denied")
    assert "could not be run: the disk is full" in end(bench.ask("1")).reason


# ---------------------------------------------------------------- with real members

FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
approval = true
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
mock = { income = [1000, 2000] }
[party.agency]
"""


def test_an_owner_decides_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    LOANS.to_csv(tmp_path / "loans.csv", index=False)
    (tmp_path / "federation.toml").write_text(FILE)
    home = str(tmp_path / ".fednb" / "bank")
    tomorrow = (datetime.date.today() + datetime.timedelta(days=1)).isoformat()

    def inbox(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert cli.main(["inbox", home, *arguments]) == code
        said = capsys.readouterr()
        return said.out + said.err

    with (
        launch.up(tmp_path / "federation.toml") as running,
        DealerEndpoint(MemberHome.load(running.home)) as endpoint,
    ):
        cells = CellClient(endpoint)

        def ask(code: str, member: str = "bank") -> list[CellEvent]:
            return [event for _, event in cells.ask([member], code, "for the report")]

        code = "t = fed.load('loans')\nprint(t['income'].max())"
        assert end(ask(code)).status == "waiting"
        assert end(ask(code, "agency")).status == "refused", "a party without approval says so, at once"
        assert "nothing waits" not in (listed := inbox()) and "for the report" in listed
        id = listed.split()[0]
        shown = inbox("show", id)
        assert "2  print(t['income'].max())" in shown and "tables: loans" in shown and "income" in shown
        assert 1000 <= int(inbox("try", id)) <= 2000, "on invented rows, in the owner's ranges"
        assert "say why" in inbox("deny", id, code=2)
        assert "up to 366 days" in inbox("approve", id, "--until", "2099-01-01", code=2)
        assert f"{id} is approved" in inbox("approve", id, "--until", tomorrow)
        until(lambda: "quarantined" in inbox())
        assert inbox("outputs", id) == "39\n\n"
        assert "output.txt" in inbox("outputs", id, "--save", str(tmp_path / "look"))
        assert f"{id} is released" in inbox("release", id)
        assert printed(ask(code)) == "39\n"
        assert "is released by now" in inbox("approve", id, code=1)

        ask(code.replace("max", "min"))
        second = inbox().split()[0]
        difference = inbox("show", second)
        assert f"difference to {id}" in difference and "-print(t['income'].max())" in difference
        inbox("deny", second, "--reason", "too narrow")
        assert "too narrow" in end(ask(code.replace("max", "min"))).reason
        assert "nothing waits" in inbox() and inbox("list", "--all").count("\n") == 2
        cells.close()
    assert not audit.verify(Path(home) / "audit", "bank").problems
    kinds = [entry["event"] for entry in audit.entries(Path(home) / "audit")]
    for kind in ("asked", "approved", "approved cell", "approved cell ended", "released", "denied"):
        assert kind in kinds


def test_approval_in_a_federation_file(tmp_path: Path) -> None:
    (tmp_path / "loans.csv").write_text("sme_id,income,default\n")
    text = FILE + "approval = true\n"
    parties = config.parse(text, tmp_path / "f.toml").parties
    assert parties["bank"].approval and parties["bank"].tables["loans"].mock == {"income": (1000, 2000)}
    for wrong, said in {
        text.replace("[party.agency]", '[party.agency]\nmode = "open"'): "runs every cell without asking",
        text.replace("[1000, 2000]", "[2, 1]"): r"mock.income: write \[LEAST, MOST\]",
        text.replace("[1000, 2000]", "[]"): r"mock.income: write \[LEAST, MOST\]",
    }.items():
        with pytest.raises(ConfigError, match=said):
            config.parse(wrong, tmp_path / "f.toml")
