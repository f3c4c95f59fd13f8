"""Where a party's agent serves `fednb serve`: the service has no keys, no model and no tables; all stay on this side.

Only processes of the agent's own user reach it, through a socket in a folder of mode 0700; where that lies is written
into the member's home.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fednb.errors import DataError, FednbError, Refused
from fednb.federation import messages as m
from fednb.federation.client import Federation
from fednb.federation.online_session import Service, Session
from fednb.federation.online_words import (
    Figure,
    OnlineAsk,
    OnlineLook,
    OnlineScored,
    OnlineServe,
    OnlineServing,
    OwnModel,
    check_declared,
)
from fednb.federation.seat import explain
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.protocols import ids as spelling
from fednb.protocols.base import Dataset
from fednb.protocols.model_part import check_seal
from fednb.protocols.online_part import Score, meaning, scoring, texts
from fednb.text import plain
from fednb.wire.endpoint import Conversation, Endpoint, Presence
from fednb.wire.keys import write_whole
from fednb.wire.message import Message

log = logging.getLogger("fednb.online")

SOCKET = "online"  # in the member's folder for sockets
POINTER = "online.socket"  # in its home: where that is


class OnlineDesk:
    """Serves "online/…" conversations of this member's own services."""

    def __init__(self, endpoint: Endpoint, tables: TableStore, store: MemberStore, coordinator: str) -> None:
        self._me = endpoint.me
        self._tables = tables
        self._store = store
        self._federation = Federation(endpoint, coordinator)
        self._services: dict[str, Service] = {}
        self._rows: dict[tuple[str, str], dict[bytes, int]] = {}
        self._lock = threading.Lock()
        self._pipe: Endpoint | None = None
        self._pointer: Path | None = None
        endpoint.watch(self._came)

    def serve(self, pipe: Endpoint, path: Path, home: Path) -> None:
        """Listen at a pipe at `path`, and say in the member's home where that is."""
        self._pipe, self._pointer = pipe, home / POINTER
        pipe.listen("online/", self._serve)
        write_whole(self._pointer, f"{path}\n".encode())

    def asks(self, join: m.Join) -> Session:
        """Where a run takes its applicants from. Raises Refused for one that no service here began."""
        with self._lock:
            services = list(self._services.values())
        for service in services:
            if (session := service.session_of(join)) is not None:
                session.run = join.run
                return session
        raise Refused(f"{self._me} has no online service that began run {join.run}.", member=self._me, rule="online")

    def close(self) -> None:
        with self._lock:
            services, self._services = list(self._services.values()), {}
        for service in services:
            service.close()
        if self._pointer is not None:
            self._pointer.unlink(missing_ok=True)
        if self._pipe is not None:
            self._pipe.close()

    def _came(self, seen: Presence) -> None:
        if seen.up:
            with self._lock:
                services = list(self._services.values())
            for service in services:
                service.wake()

    # ------------------------------------------------------------ the service's requests

    def _serve(self, talk: Conversation) -> None:
        request: OnlineServe | OnlineAsk | OnlineLook = talk.recv(OnlineServe, OnlineAsk, OnlineLook)
        service: Service | None = None
        answer: Message
        try:
            if isinstance(request, OnlineServe):
                answer, service = self.begin(request)
            elif isinstance(request, OnlineAsk):
                answer = self.score(request)
            else:
                answer = self._service(request.service).state()
        except Exception as error:
            if not isinstance(error, FednbError):
                log.exception("a request of the online service failed")
            answer = m.Failed(explain(error), type(error).__name__, self._me)
        try:
            talk.send(answer)
            if service is not None:
                talk.recv(m.Ok)  # or the end of the conversation, which is the end of the service
        finally:
            if service is not None:
                self._end(service)

    def _end(self, service: Service) -> None:
        with self._lock:
            self._services.pop(service.id, None)
        service.close()

    def _service(self, name: str) -> Service:
        with self._lock:
            service = self._services.get(name)
        if service is None:
            raise DataError(f"{self._me} has no online service {name!r} any more; start it again.")
        return service

    def begin(self, request: OnlineServe) -> tuple[OnlineServing, Service]:
        """Keep sessions open for a model until the service is closed.

        Raises DataError for a model or a table that cannot be served.
        """
        part = self._part(request.model)
        check_declared(self._me, part)
        scoring(self._me, part, list(request.seals), request.reasons)
        if not request.seals:
            raise DataError("the model has no passive party; fednb serve is for models of several.")
        if request.fallback is not None:
            spare = self._part(request.fallback)
            check_declared(self._me, spare)
            scoring(self._me, spare, (), 0)
        if request.table is not None:
            self._index(request.table)
        service = Service(self._federation, self._me, request)
        with self._lock:
            self._services[service.id] = service
        service.start()
        return OnlineServing(service.id, meaning(part), texts(part)), service

    def score(self, ask: OnlineAsk) -> OnlineScored:
        """Of one applicant, by the service's model and by its fallback. Raises DataError for what cannot be asked."""
        service = self._service(ask.service)
        asked = service.asked
        if not spelling.normalise([ask.id])[0]:
            raise DataError("the applicant's id is empty.")
        row = None
        if ask.features is None:
            if asked.table is None:
                raise DataError("the request brings no features, and the service has no table to look them up.")
            row = self._index(asked.table).get(bytes(spelling.normalise([ask.id])[0]))
            if row is None:
                return OnlineScored(unknown=True)
        fallback, why_no_fallback = None, "the service has no fallback."
        if asked.fallback is not None:
            try:
                own, part = self._own(asked, asked.fallback, ask, row), self._part(asked.fallback)
                spare = scoring(self._me, part, (), asked.reasons if "card" in part else 0)
                fallback, why_no_fallback = _figure(spare.score(own, {})), ""
            except DataError as error:
                why_no_fallback = str(error)
        try:
            own = self._own(asked, asked.model, ask, row)
        except DataError as error:
            return OnlineScored(fallback=fallback, cause="data", why=str(error), why_no_fallback=why_no_fallback)
        found, cause, why, run = service.score(ask.id, own, ask.seconds)
        return OnlineScored(
            federated=None if found is None else _figure(found),
            fallback=fallback,
            cause=cause,
            why=plain(why),
            why_no_fallback=why_no_fallback,
            run=run,
        )

    def _part(self, model: OwnModel) -> Mapping[str, object]:
        part = self._store.load(model.run)
        check_seal(self._me, part, model.seal)
        return part

    def _own(self, asked: OnlineServe, model: OwnModel, ask: OnlineAsk, row: int | None) -> Dataset:
        """This party's features of one applicant, for one of its models."""
        names = tuple(model.features)
        if ask.features is None:
            rows, levels = np.array([row], dtype=np.int64), dict[str, tuple[str, ...]]()
            wanted = levels if "levels" in self._part(model) else None  # only trees know text
            X, _ = self._tables.features(str(asked.table), names, rows, missing=True, levels=wanted)
            return Dataset(X=X, columns=names, levels=levels)
        return _own_row(self._me, ask.features, names, texts(self._part(model)))

    def _index(self, table: str) -> Mapping[bytes, int]:
        """Rows by normalised id, as long as the table stays as it is."""
        digest = self._tables.digest(table)
        with self._lock:
            if (found := self._rows.get((table, digest))) is not None:
                return found
        own = spelling.prepare(self._tables.ids(table))
        if own.duplicates:
            raise DataError(f"{own.duplicates} rows of {self._me}'s table {table!r} repeat an id.")
        made = dict(zip(map(bytes, own.ids.tolist()), own.rows.tolist(), strict=True))
        with self._lock:
            self._rows = {(name, at): rows for (name, at), rows in self._rows.items() if name != table}
            self._rows[table, self._tables.digest(table)] = made
        return made


def _own_row(me: str, features: Mapping[str, float | str | None], names: tuple[str, ...], known: list[str]) -> Dataset:
    """One row; NaN where a value is missing, and text, which the model has to know as such, as a level."""
    absent = [name for name in names if name not in features]
    if absent:
        raise DataError(f"the request lacks {me}'s {', '.join(map(repr, absent))}.")
    found = [(name, features[name]) for name in names]
    strange = [name for name, value in found if isinstance(value, str) and name not in known]
    if strange:
        raise DataError(f"the model takes numbers for {me}'s {', '.join(map(repr, strange))}, and text came.")
    levels = {name: (value,) for name, value in found if isinstance(value, str)}
    numbers = [0.0 if isinstance(value, str) else math.nan if value is None else float(value) for _, value in found]
    return Dataset(X=np.array([numbers], dtype=np.float64), columns=names, levels=levels)


def _figure(score: Score) -> Figure:
    return Figure(
        score.value,
        score.points,
        {party: list(codes) for party, codes in score.reasons.items()},
        dict(score.no_evidence),
        list(score.unseen),
    )
