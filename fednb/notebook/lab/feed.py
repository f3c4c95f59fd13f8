"""Keeps the page's picture of the federation fresh: members, tables, runs, and the progress of those that go on.

One thread asks, and one more for each run that is followed. It asks often while something goes on, seldom otherwise,
and says only what has changed. Nothing is asked before a page is there to see it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fednb.errors import FednbError
from fednb.federation import messages as m
from fednb.federation.alignment import figures
from fednb.federation.client import Federation
from fednb.federation.result import RunResult
from fednb.notebook.lab import messages as lab
from fednb.notebook.lab.following import Following
from fednb.text import plain

if TYPE_CHECKING:
    from fednb.notebook.session import Session

log = logging.getLogger("fednb.notebook")

BUSY_SECONDS, IDLE_SECONDS = 2.0, 15.0  # between two rounds of questions
MOST_TABLES, MOST_COLUMNS, MOST_RUNS = 200, 300, 50
MOST_FOLLOWED = 20  # runs; those that have ended make room
ADVICE = (
    "Run `%fed connect` for the federation that `fednb up` started last on this machine, or `%fed connect FILE` with a "
    "federation file or a member's home."
)

Tell = Callable[[lab.Told], None]


class Feed:
    """The news of one notebook's federation. `tell` is called from this feed's threads."""

    def __init__(self, session: Session, tell: Tell) -> None:
        self._session = session
        self._tell = tell
        self._due = threading.Event()
        self._closed = False
        self._ask_tables = True
        self._said: dict[type[lab.Told], lab.Told] = {}
        self._watched: Federation | None = None  # whose members call back
        self._modes: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._asks: list[str] = []
        self._overlaps: dict[str, lab.Overlap | None] = {}
        self._runs: dict[str, m.RunInfo] = {}
        self._followed: dict[str, Following] = {}  # oldest first
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin, if that has not happened."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="fednb-lab-feed", daemon=True)
                self._thread.start()

    def again(self) -> None:
        """Ask now."""
        self._ask_tables = True
        self._due.set()

    def repeat(self) -> None:
        """Say everything once more: to a page that has just come, or that may have missed something."""
        for news in list(self._said.values()):
            self._tell(news)
        for following in list(self._followed.values()):
            if not following.over.is_set():
                self._tell(following.news())

    def close(self) -> None:
        self._closed = True
        self._due.set()

    # ------------------------------------------------------------ rounds

    def _work(self) -> None:
        while not self._closed:
            self._due.clear()
            try:
                self._round()
            except FednbError as error:
                log.info("the federation did not answer: %s", error)
            except Exception:  # a picture beside the notebook must not end with a traceback in it
                log.exception("a round of questions for the page failed")
            self._due.wait(BUSY_SECONDS if self.busy else IDLE_SECONDS)

    @property
    def busy(self) -> bool:
        """Whether something goes on of which there may be news any moment."""
        return self._session.log.busy or any(run.status == "running" for run in self._runs.values())

    def _round(self) -> None:
        federation = self._session.current
        if federation is None:
            self._runs, self._modes, self._missing, self._asks = {}, {}, {}, []
            self._say(lab.FederationNews(connected=False, attached=self._session.attached, advice=self._advice()))
            self._say(lab.TablesNews(tables=[]))
            self._say(lab.RunsNews(runs=[]))
            return
        if federation is not self._watched:
            self._watched, self._ask_tables, self._followed, self._overlaps = federation, True, {}, {}
            federation.endpoint.watch(lambda seen: self._noticed(federation))
        self._say_members(federation)
        coordinator = federation.members().get(federation.coordinator)
        if coordinator is None or not coordinator.up:
            return
        self._list_runs(federation)
        if self._ask_tables:
            self._ask_tables = False
            self._list_tables(federation)
            self._say_members(federation)  # modes came with the tables

    def _noticed(self, federation: Federation) -> None:
        """Somebody came or went. A round may just be waiting for an answer that will not come: it is not waited for."""
        self.again()
        threading.Thread(
            target=self._say_members, args=(federation,), name="fednb-lab-members", daemon=True
        ).start()

    def _say_members(self, federation: Federation) -> None:
        with self._lock:  # what was looked at later is said later
            if federation is self._watched:
                self._say(self._members(federation))

    def _advice(self) -> str:
        return ADVICE if self._session.connector is None else "It connects at the first cell that needs a federation."

    def _members(self, federation: Federation) -> lab.FederationNews:
        seen_now = federation.members()
        me = seen_now.get(federation.me.partition("#")[0])
        reached = me is None or me.up  # without the hub, nobody knows how anybody is
        members = [
            lab.Member(
                name=name,
                kind=seen.kind,
                up=seen.up and reached,
                version=plain(seen.version, 100),
                ms=None if seen.seconds is None else round(1000 * seen.seconds, 1),
                mode=plain(self._modes.get(name, ""), 40),
                why=plain(self._missing.get(name, ""), 300) if seen.up else "",
            )
            for name, seen in sorted(seen_now.items())
        ]
        return lab.FederationNews(
            connected=True,
            me=federation.me,
            coordinator=federation.coordinator,
            parties=list(federation.parties),
            members=members,
            attached=self._session.attached,
            asks=self._asks,
            advice="" if reached else "The hub does not answer. It is looked for; nothing needs to be done here.",
        )

    def _list_tables(self, federation: Federation) -> None:
        answer = federation.describe()
        self._modes, self._missing = answer.modes, answer.missing
        self._asks = [plain(name, 64) for name in answer.asks]
        tables = [
            lab.Table(
                member=plain(info.member, 64),
                name=plain(info.name, 100),
                rows=info.rows,
                columns=[
                    lab.Column(name=plain(c.name, 100), dtype=plain(c.dtype, 20), role=c.role)
                    for c in info.columns[:MOST_COLUMNS]
                ],
                more=max(0, len(info.columns) - MOST_COLUMNS),
            )
            for info in answer.tables[:MOST_TABLES]
        ]
        self._say(lab.TablesNews(tables=tables))

    def _list_runs(self, federation: Federation) -> None:
        found = federation.list_runs(MOST_RUNS)
        self._runs = {info.run: info for info in found}
        for info in found:
            if info.status == "running" and info.run not in self._followed:
                self.follow(info.run)
        self._say(lab.RunsNews(runs=[self._run(federation, info) for info in found]))

    def _run(self, federation: Federation, info: m.RunInfo) -> lab.Run:
        return lab.Run(
            run=plain(info.run, 64),
            title=plain(info.title or info.protocol, 200),
            protocol=plain(info.protocol, 100),
            status=info.status,
            seconds=round(info.seconds, 1),
            started=info.started,
            by=plain(info.by, 100),
            members=[plain(player, 64) for players in info.cast.values() for player in players],
            mine=info.by == federation.me.partition("#")[0],
            bytes=info.bytes,
            estimate=info.estimate.seconds if info.estimate else None,
            error=plain(info.error, 500),
            overlap=self._overlap(federation, info),
        )

    def _overlap(self, federation: Federation, info: m.RunInfo) -> lab.Overlap | None:
        if info.status != "ok" or not info.protocol.startswith("psi"):
            return None
        if info.run not in self._overlaps:
            self._overlaps[info.run] = _overlap(federation, info)
        return self._overlaps[info.run]

    def _say(self, news: lab.Told) -> None:
        if self._said.get(type(news)) != news:
            self._said[type(news)] = news
            self._tell(news)

    # ------------------------------------------------------------ one run

    def follow(self, run: str) -> None:
        """Tell how this run goes: now, and until it ends."""
        federation = self._session.current
        known = self._followed.get(run)
        if known is not None:
            self._tell(known.news())
            return
        if federation is None:
            return
        while len(self._followed) >= MOST_FOLLOWED:
            ended = next((each for each, following in self._followed.items() if following.over.is_set()), None)
            if ended is None:
                return
            del self._followed[ended]
        info = self._runs.get(run)
        title = plain(info.title or info.protocol, 200) if info else run
        self._followed[run] = Following(federation, run, title, self._session.looks(), self._tell)
        self._followed[run].start()


def _overlap(federation: Federation, info: m.RunInfo) -> lab.Overlap | None:
    """What the members of an alignment made public; None for a run of another shape."""
    parties = [player for role, players in info.cast.items() if role != "coordinator" for player in players]
    try:
        (ended,) = [item for item in federation.watch(info.run) if isinstance(item, m.RunEnded)]
        result = RunResult(info.run, ended.results, ended.seconds, tuple(ended.notices))
        view = figures(result, dict.fromkeys(parties, ""), dict.fromkeys(parties, []), federation.coordinator)
    except (FednbError, KeyError, ValueError):
        return None
    return lab.Overlap(
        matched=view.matched,
        ids={part.member: part.ids for part in view.parties},
        duplicates={part.member: part.duplicates for part in view.parties},
        notes=[plain(note, 500) for note in view.notes[:20]],
    )
