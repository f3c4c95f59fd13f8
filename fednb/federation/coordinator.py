"""The member that starts runs and plays the coordinator's role: it invites, waits for all, says go, keeps the record.

It sees names, sizes, progress and what protocols declare public. In training it holds the secret key and decrypts
masked sums only, within a quota; rows and labels never pass here.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from fednb.errors import DataError, FednbError, LinkError, PeerLost, Refused, RunCancelled
from fednb.federation import digests
from fednb.federation import messages as m
from fednb.federation.cast import check_cast, check_params
from fednb.federation.placement import exposure
from fednb.federation.receipts import Book
from fednb.federation.runs import RunRecord, RunStore, follows, single
from fednb.federation.seat import Seat, explain
from fednb.federation.store import MemberStore
from fednb.policy.audit import Head
from fednb.policy.quota import QuotaLedger
from fednb.protocols.base import Budget, Dataset, Protocol
from fednb.version import __version__
from fednb.wire.endpoint import Conversation, Endpoint
from fednb.wire.message import Message

log = logging.getLogger("fednb.coordinator")

CLOSE_SECONDS = 4.0
JOIN_SECONDS = 300.0  # a party may have to read and normalise a large table before it joins


@dataclass
class _Failure:
    member: str  # whose seat reported it
    blames: str  # who failed first, as that seat saw it
    error: str
    error_type: str
    rule: str = ""


@dataclass
class _Run:
    """A run under way."""

    record: RunRecord
    protocol: Protocol
    request: m.StartRun
    talks: dict[str, Conversation] = field(default_factory=dict)
    seat: Seat | None = None
    failures: list[_Failure] = field(default_factory=list)
    results: dict[str, m.MemberResult] = field(default_factory=dict)
    receipts: dict[str, m.Receipt] = field(default_factory=dict)
    label_sets: dict[str, str] = field(default_factory=dict)  # as their owners name them
    heads: list[Head] = field(default_factory=list)  # of the members' audit logs, when they joined
    cancelled: str | None = None
    playing: bool = False  # everybody has joined
    resume: bool = False
    step: int | None = None  # of the journals, where a resumed run goes on
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def id(self) -> str:
        return self.record.info.run

    def fail(self, failure: _Failure) -> None:
        with self.lock:
            self.failures.append(failure)

    def stop(self, reason: str) -> None:
        for talk in list(self.talks.values()):  # others may still be invited meanwhile
            try:
                talk.send(m.Cancel(reason=reason))
            except LinkError:
                continue  # that member is gone already
        if self.seat is not None:
            self.seat.cancel(reason)


class CoordinatorService:
    """Serves "runs/…" conversations of clients, on the network and on its own kernels' pipe."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: MemberStore,
        runs: RunStore,
        quota: QuotaLedger,
        *,
        lookup: Callable[[str], Protocol],
        threads: int = 1,
        organisation: str = "",
        book: Book | None = None,
    ) -> None:
        """`organisation` is the party whose organisation runs this coordinator; "": it is apart from all."""
        self._endpoint = endpoint
        self._store = store
        self._runs = runs
        self._quota = quota
        self._lookup = lookup
        self._threads = threads
        self._organisation = organisation
        self._book = book or Book(endpoint.me)
        self._active: dict[str, _Run] = {}
        self._lock = threading.Lock()
        self._told = threading.Condition()
        self._telling = 0  # clients that follow a run
        self.serve(endpoint)

    def serve(self, endpoint: Endpoint, *, by: str | None = None) -> None:
        """Answer clients on another endpoint too: the pipe of this member's own kernels, on behalf of analyst `by`."""
        endpoint.listen("runs/", lambda talk: self._client(talk, by))

    def parties(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, seen in self._endpoint.members().items() if seen.kind == "party"))

    # ------------------------------------------------------------ clients

    def _client(self, talk: Conversation, by: str | None) -> None:
        who = by or talk.peer.partition("#")[0]
        known = self._endpoint.members().get(who)
        kind = "analyst" if by is not None else known.kind if known is not None else ""
        request = talk.recv(m.StartRun, m.ResumeRun, m.WatchRun, m.CancelRun, m.ListRuns, m.ListTables, m.AskPlacement)
        if kind != "analyst" and not (kind == "party" and self._may_serve(request, who)):
            talk.close(f"{who} is not an analyst of this federation; only analysts start runs.")
            return
        try:
            self._answer(talk, request, who)
        except LinkError:
            raise
        except Exception as error:
            if not isinstance(error, FednbError):
                log.exception("a request failed")
            talk.send(
                m.Failed(
                    error=explain(error),
                    error_type=type(error).__name__,
                    member=getattr(error, "member", ""),
                    rule=getattr(error, "rule", ""),
                )
            )

    def _may_serve(self, request: Message, who: str) -> bool:
        """Whether a party asks for what concerns its own service: a run that its role begins, or one that it began."""
        try:
            if isinstance(request, m.StartRun):
                protocol = self._lookup(request.protocol)
                return bool(protocol.begun_by) and request.cast.get(protocol.begun_by) == [who]
            if isinstance(request, m.WatchRun | m.CancelRun):
                return self._runs.get(request.run).info.by == who
        except DataError:
            return False
        return False

    def _answer(self, talk: Conversation, request: Any, who: str) -> None:
        if isinstance(request, m.StartRun):
            talk.send(m.RunStarted(run=self.start(request, by=who)))
        elif isinstance(request, m.ResumeRun):
            self._check_begun_by(request.run, who)
            self.resume(request.run)
            talk.send(m.RunStarted(run=request.run))
        elif isinstance(request, m.WatchRun):
            self._tell(talk, self._runs.get(request.run).follow(request.since))
        elif isinstance(request, m.CancelRun):
            self._check_begun_by(request.run, who)
            self.cancel(request.run, f"{who} cancelled the run.")
            talk.send(m.Ok())
        elif isinstance(request, m.ListRuns):
            talk.send(m.Runs(runs=self._runs.latest(request.limit)))
        elif isinstance(request, m.AskPlacement):
            talk.send(m.Placement(organisation=self._organisation))
        else:
            talk.send(self.tables())

    def _tell(self, talk: Conversation, items: Iterator[m.RunEvent | m.RunEnded]) -> None:
        with self._told:
            self._telling += 1
        try:
            for item in items:
                talk.send(item)
        finally:
            with self._told:
                self._telling -= 1
                self._told.notify_all()

    def _check_begun_by(self, run_id: str, who: str) -> None:
        by = self._runs.get(run_id).info.by
        if who != by:
            raise Refused(f"run {run_id} was begun by {by}; only {by} may cancel or resume it.", rule="own runs")

    def tables(self) -> m.Tables:
        """Ask every party what it holds; a party that does not answer is named with the reason."""
        members = self._endpoint.members()
        found: list[m.TableInfo] = []
        missing: dict[str, str] = {}
        modes: dict[str, str] = {}
        asks: list[str] = []

        def ask(party: str) -> m.Tables:
            talk = self._endpoint.open(party, f"member/describe-{secrets.token_hex(8)}")
            try:
                talk.send(m.Describe())
                return talk.recv(m.Tables, timeout=60)
            finally:
                talk.close()

        up = [party for party in self.parties() if members[party].up]
        missing |= {party: "it is down" for party in self.parties() if party not in up}
        if not up:
            return m.Tables(tables=[], missing=missing)
        with ThreadPoolExecutor(len(up)) as pool:
            for party, answer in [(party, pool.submit(ask, party)) for party in up]:
                try:
                    said = answer.result()
                    # a party describes its own tables and mode only, whatever it says
                    found += [msgspec.structs.replace(info, member=party) for info in said.tables]
                    modes[party] = said.modes.get(party, "")
                    asks += [party] if party in said.asks else []
                except LinkError as error:
                    missing[party] = str(error)
        return m.Tables(tables=found, missing=missing, modes=modes, asks=asks)

    # ------------------------------------------------------------ runs

    def start(self, request: m.StartRun, *, by: str) -> str:
        """Check the request, begin the run on a thread of its own, and return its id."""
        protocol = self._lookup(request.protocol)
        if protocol.begun_by and request.cast.get(protocol.begun_by) != [by]:
            raise Refused(f"{protocol.name} is begun by its {protocol.begun_by} party's own service.", rule="begun by")
        self._check_cast(request, protocol)
        check_params(request.params, protocol, self._endpoint.me)
        info = m.RunInfo(
            run=secrets.token_hex(8),
            protocol=protocol.name,
            title=request.title or protocol.name,
            status="running",
            started=time.time(),
            seconds=0.0,
            by=by,
            cast=request.cast,
            estimate=request.estimate,
            params=single(request.params),
            follows=follows(request.data.values()),
            version=__version__,
        )
        run = _Run(self._runs.begin(info), protocol, request)
        self._store.write(f"{run.id}-request", request)
        self._begin(run)
        return run.id

    def resume(self, run_id: str) -> None:
        """Continue a run that failed or was cancelled half-way, from the last step that all members have."""
        record = self._runs.get(run_id)
        request = self._store.read(f"{run_id}-request", m.StartRun)
        if request is None:
            raise DataError(f"the coordinator no longer has the request of run {run_id}; start it anew.")
        protocol = self._lookup(request.protocol)
        self._check_cast(request, protocol)
        record.reopen()  # of two at once, one succeeds
        self._begin(_Run(record, protocol, request, resume=True))

    def _begin(self, run: _Run) -> None:
        with self._lock:
            self._active[run.id] = run
        threading.Thread(target=self._conduct, args=(run,), name=f"fednb-run-{run.id}", daemon=True).start()

    def cancel(self, run_id: str, reason: str) -> None:
        with self._lock:
            run = self._active.get(run_id)
        if run is None:
            self._runs.get(run_id)  # raises for an unknown run; one that has ended needs nothing
            return
        run.cancelled = reason
        run.stop(reason)
        if not run.playing:  # do not wait for members that still read their tables
            for talk in list(run.talks.values()):
                talk.close(reason)

    def close(self, lost: str = "") -> None:
        """End what still runs. `lost` is the member whose death is the reason, if that is the reason."""
        with self._lock:
            active = list(self._active.values())
        for run in active:
            reason = f"{lost} has died, so the coordinator was stopped." if lost else "the coordinator was stopped."
            if lost in _players(run.request):
                run.fail(_Failure(self._endpoint.me, lost, reason, PeerLost.__name__))
            else:
                run.cancelled = reason
            run.stop(reason)
        deadline = time.monotonic() + CLOSE_SECONDS  # those who wait for the verdict should have it before we go
        for run in active:
            run.over.wait(max(0.0, deadline - time.monotonic()))
        with self._told:
            self._told.wait_for(lambda: not self._telling, max(0.0, deadline - time.monotonic()))

    def _check_cast(self, request: m.StartRun, protocol: Protocol) -> None:
        members = self._endpoint.members()
        check_cast(request.cast, protocol, members, self._endpoint.me)
        for player in sorted(_players(request) - {self._endpoint.me}):
            if not members[player].up:
                raise PeerLost(f"{player} is down; start it, then try again (%fed status).", member=player)

    def _conduct(self, run: _Run) -> None:
        began = time.monotonic()
        try:
            self._invite(run)
            if not run.failures and run.cancelled is None:
                self._play(run)
        except Exception as error:
            log.exception("run %s failed", run.id)
            blames = getattr(error, "member", "")  # a member that went away between two of our messages
            run.fail(_Failure(self._endpoint.me, blames, explain(error), type(error).__name__))
        finally:
            for talk in run.talks.values():
                talk.close()
            with self._lock:
                self._active.pop(run.id, None)
            ended = self._verdict(run, time.monotonic() - began)
            run.record.end(msgspec.structs.replace(ended, receipts=list(run.receipts.values())))
            run.over.set()

    def _invite(self, run: _Run) -> None:
        request = run.request
        for role, players in request.cast.items():
            for player in players:
                if player == self._endpoint.me:
                    continue
                talk = run.talks[player] = self._endpoint.open(player, f"member/{run.id}")
                talk.send(
                    m.Join(
                        run=run.id,
                        protocol=run.protocol.name,
                        version=run.protocol.version,
                        role=role,
                        cast=request.cast,
                        params=request.params,
                        data=request.data.get(player, m.DataRef()),
                        by=run.record.info.by,
                        coordinator_at=self._organisation,
                        resume=run.resume,
                    )
                )
        steps = [self._store.journal(run.id).steps()] if self._endpoint.me in _players(request) else []
        for player, talk in run.talks.items():
            try:
                answer = talk.recv(m.Joined, m.Declined, timeout=JOIN_SECONDS)
            except LinkError as error:
                run.fail(_Failure(player, error.member or player, str(error), type(error).__name__))
                continue
            if isinstance(answer, m.Declined):
                run.fail(_Failure(player, player, answer.error, answer.error_type, answer.rule))
            else:
                steps.append(answer.steps)
                run.label_sets[player] = answer.label_set
                run.record.made_of(player, answer.data, answer.code)
                if answer.head is not None:
                    run.heads.append(msgspec.structs.replace(answer.head, member=player))
        if run.failures:
            run.stop("another member could not join.")
        elif run.resume:
            run.step = max(set(steps[0]).intersection(*steps[1:]), default=None)  # None: from the beginning

    def _play(self, run: _Run) -> None:
        run.playing = True
        self._book.witness(run.heads)
        mine = self._book.head()
        heads = [*run.heads, mine] if mine is not None else run.heads
        for talk in run.talks.values():
            talk.send(m.Go(step=run.step, heads=heads))
        watchers = [
            threading.Thread(target=self._watch, args=(run, player, talk), daemon=True)
            for player, talk in run.talks.items()
        ]
        for watcher in watchers:
            watcher.start()
        role = next((r for r, players in run.request.cast.items() if self._endpoint.me in players), None)
        if role is not None:
            self._play_own(run, role)
        for watcher in watchers:
            watcher.join()

    def _play_own(self, run: _Run, role: str) -> None:
        join = m.Join(
            run=run.id,
            protocol=run.protocol.name,
            version=run.protocol.version,
            role=role,
            cast=run.request.cast,
            params=run.request.params,
            data=m.DataRef(),
            by=run.record.info.by,
        )
        journal = self._store.journal(run.id)
        journal.resume_from(run.step)
        run.seat = Seat(
            self._endpoint,
            run.protocol,
            join,
            emit=run.record.add,
            budget=self._budget(run),
            journal=journal,
            threads=self._threads,
        )
        if run.cancelled is not None:
            run.seat.cancel(run.cancelled)
        try:
            ref = run.request.data.get(self._endpoint.me, m.DataRef())
            part = self._store.load(ref.part) if ref.part and "part" in run.protocol.roles[role].needs else {}
            self._book.run_begins(join)
            run.record.made_of(self._endpoint.me, "", digests.of_code(run.protocol))
            outcome, result = run.seat.play(Dataset(part=part))
        except Exception as error:
            if not isinstance(error, FednbError):
                log.exception("the coordinator's role failed")
            blames = getattr(error, "member", "") if isinstance(error, LinkError) else self._endpoint.me
            rule = getattr(error, "rule", "")
            run.fail(_Failure(self._endpoint.me, blames, explain(error), type(error).__name__, rule))
            run.receipts[self._endpoint.me] = self._book.run_ended(join, "failed", run.seat.crossed())
            return
        run.receipts[self._endpoint.me] = self._book.run_ended(join, "ok", run.seat.crossed())
        self._store.save(run.id, outcome.private)
        journal.forget()
        run.results[self._endpoint.me] = result

    def _watch(self, run: _Run, player: str, talk: Conversation) -> None:
        while True:
            try:
                said: Message = talk.recv(m.MemberEvent, m.MemberDone, m.MemberFailed)
            except LinkError as error:
                run.fail(_Failure(player, error.member or player, str(error), type(error).__name__))
                run.stop(f"{player} was lost: {error}")
                return
            if isinstance(said, m.MemberDone | m.MemberFailed) and said.receipt is not None:
                self._take(run, player, said.receipt)
            if isinstance(said, m.MemberEvent):
                run.record.add(msgspec.structs.replace(said.event, member=player))
            elif isinstance(said, m.MemberDone):
                with run.lock:
                    run.results[player] = said.result
                return
            elif isinstance(said, m.MemberFailed):
                run.fail(_Failure(player, said.member or player, said.error, said.error_type, said.rule))
                run.stop(f"{player} left the run: {said.error}")
                return

    def _take(self, run: _Run, player: str, receipt: m.Receipt) -> None:
        """A member speaks for itself only, whatever it says."""
        head = receipt.head and msgspec.structs.replace(receipt.head, member=player)
        with run.lock:
            run.receipts[player] = msgspec.structs.replace(receipt, member=player, about=run.id, head=head)
        self._book.witness([head])

    def _budget(self, run: _Run) -> Budget | None:
        """The decryption budget of the label set that this run learns from; None where no role uses a label.

        Whose label that is the cast says, and which its owner: neither another party's name nor a table derived from
        another, aligned anew, opens a new account.
        """
        request = run.request
        for role, (player, *_) in request.cast.items():
            if "y" not in run.protocol.roles[role].needs:
                continue
            ref = request.data.get(player, m.DataRef())
            if ref.label is None or ref.frame is None:
                raise DataError(f"{player} was given the label's role without an aligned frame and a label's name.")
            frame = self._store.load(ref.frame)
            rows = int(frame["rows"]) if ref.rows is None else len(np.unique(ref.rows))
            if not run.label_sets.get(player):
                raise DataError(f"{player} does not say whose label it is. Install the same fednb at all members.")
            return self._quota.budget(f"{player}.{run.label_sets[player]}", rows)
        return None

    def _verdict(self, run: _Run, seconds: float) -> m.RunEnded:
        if run.cancelled is not None:
            return m.RunEnded(
                run=run.id, status="cancelled", error=run.cancelled, error_type=RunCancelled.__name__, seconds=seconds
            )
        if not run.failures:
            return m.RunEnded(
                run=run.id,
                status="ok",
                results=run.results,
                seconds=seconds,
                notices=exposure(self._organisation, run.protocol, run.request.cast),
            )
        first = _root_cause(run.failures)
        return m.RunEnded(
            run=run.id,
            status="failed",
            error=first.error,
            error_type=first.error_type,
            member=first.blames or first.member,
            rule=first.rule,
            seconds=seconds,
        )


def _players(request: m.StartRun) -> set[str]:
    return {player for players in request.cast.values() for player in players}


def _root_cause(failures: list[_Failure]) -> _Failure:
    """A member's report of its own failure explains more than another's report that it lost that member."""
    own = [f for f in failures if f.blames == f.member and f.error_type not in ("PeerLost", "RunCancelled")]
    lost = [f for f in failures if f.error_type == "PeerLost"]
    return (own or lost or failures)[0]
