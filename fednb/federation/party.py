"""A member that holds tables: says what it has, and plays its roles in runs that its policy allows.

Data never leaves through here. A run gets a `Dataset` for its role; what the role returns as private stays in the
member's store, and what it returns as public has been declared by the protocol (its leakage table).
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from fednb.errors import DataError, FednbError, LinkError, Refused
from fednb.federation import digests
from fednb.federation import messages as m
from fednb.federation.cast import check_cast
from fednb.federation.columns import Ids
from fednb.federation.online_words import check_declared
from fednb.federation.receipts import Book
from fednb.federation.scored import ScoredRows
from fednb.federation.seat import Seat, explain
from fednb.federation.spu_engine import SpuEngine
from fednb.federation.store import MemberStore, Part
from fednb.federation.terms import Admission, Origins, Terms, Used
from fednb.policy.protocol_policy import ProtocolPolicy
from fednb.protocols.base import Dataset
from fednb.protocols.base import Protocol as RunProtocol
from fednb.protocols.executor import Executor
from fednb.protocols.online_score import Asks
from fednb.protocols.psi_spu import Engine
from fednb.protocols.records import Records
from fednb.protocols.vertical_score import measure
from fednb.wire.codec import encode
from fednb.wire.endpoint import Conversation, Endpoint

log = logging.getLogger("fednb.party")


class Tables(Origins, Protocol):
    """What a party needs of its tables; `federation.tables.TableStore` is the real one."""

    def describe(self) -> list[m.TableInfo]: ...

    def ids(self, name: str, on: Sequence[str]) -> Ids:
        """[n] raw ids; several columns are joined into one id."""
        ...

    def features(
        self,
        name: str,
        columns: Sequence[str] | None,
        rows: npt.NDArray[np.int64] | None,
        *,
        missing: bool = False,
        parts: bool = False,
        levels: dict[str, tuple[str, ...]] | None = None,
        without: Container[str] = (),
    ) -> tuple[Any, tuple[str, ...]]:
        """[len(rows), d], with `parts` perhaps in a file, and the names of the d columns.

        DataError for text, unless its `levels` are wanted, and, unless allowed, missing values.
        """
        ...

    def unfit(
        self, name: str, columns: Sequence[str] | None, rows: npt.NDArray[np.int64] | None
    ) -> Mapping[str, tuple[str, npt.NDArray[np.int64]]]:
        """Of those columns that are no numbers: as `Dataset.unfit`."""
        ...

    def label(self, name: str, column: str | None, rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float64]: ...

    def records(self, name: str, columns: Sequence[str] | None, rows: npt.NDArray[np.int64] | None) -> Records:
        """Columns as they are, whatever is in them."""
        ...

    def label_of(self, name: str) -> str | None:
        """The label that was declared for a table, or for the one that it comes from."""
        ...

    def recipe(self, name: str) -> str:
        """Names how a table's rows were made of those that their owner declared; "": not at all."""
        ...

    def digest(self, name: str) -> str:
        """Changes when the table's rows change."""
        ...

    def save_rows(
        self,
        name: str,
        source: str,
        rows: npt.NDArray[np.int64],
        columns: Mapping[str, npt.NDArray[Any]],
        *,
        by_rules: bool = False,
        recipe: str = "",
    ) -> None:
        """Make a derived table: the ids of `source`'s `rows` and new columns beside them."""
        ...


class RunPolicy(Protocol):
    """What a party's owner allows in runs."""

    @property
    def mode(self) -> str:
        """ "open", "protocol-only" and so on, as it is now."""
        ...

    @property
    def approves(self) -> bool:
        """Whether its owner may be asked for cells, now."""
        ...

    def check_run(self, join: m.Join) -> None:
        """Raises Refused, naming the rule."""
        ...

    def check_analyst(self, analyst: str, protocol: str, table: str, partners: Iterable[str]) -> None:
        """Raises Refused unless this analyst may run this, on this table, with these parties."""
        ...

    def online(self, asker: str, model: str, reasons: int) -> str:
        """The table in which applicants of `asker`'s online service are looked up. Raises Refused."""
        ...

    def most_models(self, features: int) -> int | None:
        """How many different models of so many features of this party's may score a row; None: any number."""
        ...

    def releases(self, what: str) -> bool:
        """Whether `what` ("coefficients") of this party's own may be shown to the analyst."""
        ...


class PartyService:
    """Serves "member/…" conversations of the coordinator on one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        tables: Tables,
        policy: RunPolicy,
        store: MemberStore,
        *,
        coordinator: str,
        lookup: Callable[[str], RunProtocol],
        threads: int = 1,
        book: Book | None = None,
        executor: Executor | None = None,
        rules: ProtocolPolicy | None = None,
        guarded: bool = True,
        asks: Callable[[m.Join], Asks] | None = None,
        engine: Callable[[], Engine] | None = None,
    ) -> None:
        """`rules` are the owner's on runs; without them those hold that hold where a file says nothing.

        engine : gives where spu runs, or raises ConfigError; None: in a process from which no home has to be hidden.
        asks : gives the applicants of this member's own online service; without it there is none.
        guarded : False where one process holds everybody's rows anyway (simulation); no rules hold then.
        """
        self._admission = Admission(endpoint.me, rules or ProtocolPolicy(endpoint.me) if guarded else None, tables)
        self._endpoint = endpoint
        self._tables = tables
        self._policy = policy
        self._store = store
        self._coordinator = coordinator
        self._lookup = lookup
        self._threads = threads
        self._book = book or Book(endpoint.me)
        self._executor = executor
        self._asks = asks
        self._engine = engine or partial(SpuEngine, endpoint.me)
        self._scored = ScoredRows(store, endpoint.me)
        endpoint.listen("member/", self._serve)

    def _serve(self, talk: Conversation) -> None:
        if talk.peer != self._coordinator:
            talk.close(f"{self._endpoint.me} takes part only in runs of its coordinator, {self._coordinator}.")
            return
        request = talk.recv(m.Join, m.Describe)
        if isinstance(request, m.Describe):
            me, policy = self._endpoint.me, self._policy
            asks = [me] if policy.approves else []
            talk.send(m.Tables(tables=self._tables.describe(), modes={me: policy.mode}, asks=asks))
            return
        try:
            protocol = self._lookup(request.protocol)
            self._admit(request, protocol)
            self._once(request)
            data = self._online(request, protocol) or self._dataset(request.data, protocol.roles[request.role].needs)
            used = self._used(request, data)
            terms = self._admission.agree(request, protocol, self._partners(request), data, used)
            self._count_models(request, protocol, data)
            self._book.run_begins(request)
        except Exception as error:
            self._declines(request, error)
            if not isinstance(error, FednbError):
                log.exception("run %s could not be prepared", request.run)
            talk.send(
                m.Declined(error=explain(error), error_type=type(error).__name__, rule=getattr(error, "rule", ""))
            )
            return
        journal = self._store.journal(request.run)
        steps = journal.steps() if request.resume else []
        talk.send(
            m.Joined(
                steps=steps,
                head=self._book.head(),
                data=digests.of_data(self._store, self._tables.digest(used.table)) if used is not None else "",
                code=digests.of_code(protocol),
                label_set=terms.label_set,
            )
        )
        try:
            order = talk.recv(m.Go, m.Cancel)
        except LinkError:
            self._book.run_ended(request, "cancelled", [])
            raise
        if isinstance(order, m.Cancel):
            self._book.run_ended(request, "cancelled", [])
            return
        self._book.witness(order.heads)
        journal.resume_from(order.step)
        seat = Seat(
            self._endpoint,
            protocol,
            request,
            emit=lambda event: talk.send(m.MemberEvent(event=event)),
            guard=terms.guard(order.step or 0),
            journal=journal,
            threads=self._threads,
            executor=self._executor,
            apart=terms.apart,
        )
        self._play(seat, talk, data, request, terms)

    def _count_models(self, join: m.Join, protocol: RunProtocol, data: Dataset) -> None:
        """Before somebody learns a sum over features of each row: how many such sums there have been."""
        adds = "coef" in data.part or "measure" in data.part
        if not protocol.roles[join.role].scores or not adds or "columns" not in data.part:
            return
        most = self._policy.most_models(len(data.part["columns"]))
        if most is not None:
            if protocol.begun_by:  # any of its rows may be asked about, and nobody can tell which are
                keys = self._tables.own_keys(self._online_table(join), (), None)
                self._scored.count(keys, measure(data.part), most)
                return
            table, on, rows = self._origin(join.data)
            model, recipe = measure(data.part), self._recipe(join.data)
            if recipe != data.part.get("trained_on", ""):
                # the same model of rows that were prepared in another way tells something else of them
                model = hashlib.sha256(f"{model} {recipe}".encode()).hexdigest()
            self._scored.count(self._tables.own_keys(table, on, rows), model, most)

    def _online(self, join: m.Join, protocol: RunProtocol) -> Dataset | None:
        """What a role needs in a run that serves applicants one by one; None in any other."""
        if not protocol.begun_by:
            return None
        part = self._store.load(join.data.part or "")
        if "asks" in protocol.roles[join.role].needs:
            if self._asks is None:
                raise Refused(f"no online service runs at {self._endpoint.me}.", member=join.by, rule="online")
            return Dataset(part=part, asks=self._asks(join))
        check_declared(self._endpoint.me, part)
        table, levels = self._online_table(join), None if "levels" not in part else dict[str, tuple[str, ...]]()
        X, columns = self._tables.features(table, part.get("columns"), None, missing=True, levels=levels)
        return Dataset(ids=self._tables.ids(table, ()), X=X, columns=columns, part=part, levels=levels or {})

    def _online_table(self, join: m.Join) -> str:
        return self._policy.online(join.by, join.data.part or "", int(join.params.get("reasons", 0)))

    def _recipe(self, ref: m.DataRef) -> str:
        """Names how a frame's rows were made of those that their owner declared; "": not at all."""
        frame = self._store.load(str(ref.frame))
        table = str(frame["table"])
        return str(frame.get("recipe") or self._tables.recipe(table))

    def _origin(self, ref: m.DataRef) -> tuple[str, list[str], npt.NDArray[np.int64]]:
        """The table that was aligned, its id columns, and the positions there of a frame's rows."""
        frame = self._store.load(str(ref.frame))
        _, rows = self.rows(ref)
        if "origin" in frame:
            kept = frame["origin"]
            return str(kept["table"]), list(kept["on"]), np.asarray(kept["index"], dtype=np.int64)[rows]
        return str(frame["table"]), list(frame.get("on", [])), rows

    def _declines(self, join: m.Join, error: Exception) -> None:
        try:
            self._book.run_begins(join, "declined", getattr(error, "rule", "") or type(error).__name__)
        except FednbError as unwritten:  # then nothing runs anyway
            log.error("a declined run could not be written down: %s", unwritten)

    def _once(self, join: m.Join) -> None:
        """A run's id is used once, and resuming asks for the same again: else a part kept here could change."""
        frames = encode(msgspec.structs.replace(join, resume=False))
        asked = hashlib.sha256(b"".join(frames)).hexdigest()
        name = f"{join.run}-join"
        before = self._store.read(name, Part)
        if before is None:
            self._store.save(name, {"asked": asked})
        elif not join.resume or before.values["asked"] != asked:
            raise Refused(
                f"{self._endpoint.me} took part in run {join.run} before, and this is not the same run resumed. "
                "Start a new one.",
                member=self._endpoint.me,
                rule="run id",
            )

    def _play(self, seat: Seat, talk: Conversation, data: Dataset, join: m.Join, terms: Terms) -> None:
        """Play, and tell the coordinator how it ended; a Cancel, or losing the coordinator, stops the seat."""

        def listen() -> None:
            try:
                cancel = talk.recv(m.Cancel)
                seat.cancel(cancel.reason or "the run was cancelled.")
            except LinkError as error:
                seat.cancel(f"the coordinator left the run: {error}")

        threading.Thread(target=listen, name="fednb-orders", daemon=True).start()
        try:
            outcome, result = seat.play(data)
            kept = self._keep(join, outcome, result, terms)
            receipt = self._book.run_ended(join, "ok", seat.crossed(), kept.public, talk.peer)  # before it leaves
            answer: m.MemberDone | m.MemberFailed = m.MemberDone(result=kept, receipt=receipt)
            self._store.journal(join.run).forget()
        except Exception as error:
            if not isinstance(error, FednbError):
                log.exception("a role failed")
            answer = m.MemberFailed(
                error=explain(error),
                error_type=type(error).__name__,
                member=getattr(error, "member", ""),
                rule=getattr(error, "rule", ""),
                receipt=self._failed(join, seat, error),
            )
        try:
            talk.send(answer)
        except LinkError:
            log.warning("the coordinator is gone; it will not learn how the run ended here")

    def _failed(self, join: m.Join, seat: Seat, error: Exception) -> m.Receipt | None:
        try:
            refused = error.rule if isinstance(error, Refused) else ""
            return self._book.run_ended(join, "failed", seat.crossed(), refused=refused)
        except FednbError as unwritten:
            log.error("the end of a run could not be written down: %s", unwritten)
            return None

    def _admit(self, join: m.Join, protocol: RunProtocol) -> None:
        me = self._endpoint.me
        if join.version != protocol.version:
            raise Refused(
                f"{me} has version {protocol.version} of {join.protocol}, the coordinator asks for version "
                f"{join.version}. Install the same fednb at both.",
                member=me,
                rule="protocol version",
            )
        if join.role not in protocol.roles or me not in join.cast.get(join.role, []):
            raise Refused(f"{me} was asked to play {join.role!r}, which is not its part.", member=me, rule="cast")
        check_cast(join.cast, protocol, self._endpoint.members(), self._coordinator)
        self._policy.check_run(join)
        partners = self._partners(join)
        if protocol.begun_by and join.cast[protocol.begun_by] != [join.by]:
            text = f"{me} takes part in {join.protocol} only when its {protocol.begun_by} party begins it."
            raise Refused(text, member=me, rule="cast")
        if "online" in protocol.roles[join.role].needs:
            self._online_table(join)
        if not protocol.begun_by:
            self._policy.check_analyst(join.by, join.protocol, self._table_of(join.data), partners)
        self._admission.check(join, protocol, partners)

    def _partners(self, join: m.Join) -> list[str]:
        """The other parties of a run."""
        players = {player for players in join.cast.values() for player in players}
        return sorted(players - {self._endpoint.me, self._coordinator})

    def _table_of(self, ref: m.DataRef) -> str:
        """The table that a run's rows come from, through frames and parts of earlier runs; "" where none is used.

        Of a table that a run has made of it, say of weights, it is the one that was aligned: that an owner can name.
        """
        if ref.table is not None:
            return ref.table
        for name in (ref.frame, ref.part):
            seen: set[str] = set()
            while name and name not in seen:
                seen.add(name)
                kept = self._store.load(name)
                if "origin" in kept:
                    return str(kept["origin"]["table"])
                if "table" in kept:
                    return str(kept["table"])
                name = str(kept.get("frame") or "")
        return ""

    def _dataset(self, ref: m.DataRef, needs: Sequence[str]) -> Dataset:
        """The rows of this member that a role works on, in the order of the frame."""
        part: Mapping[str, Any] = self._store.load(ref.part) if ref.part else {}
        if ref.table is not None and (not part or "ids" in needs):
            engine = self._engine() if "engine" in needs else None
            return Dataset(ids=self._tables.ids(ref.table, ref.on), part=part, engine=engine)
        if ref.table is not None:  # what is needed of the table, an earlier run has read
            self._check_unchanged(ref.table, part, "prepared. Prepare it")
            return Dataset(part=part)
        parts = tuple(self._store.load(run) for run in ref.parts)
        if ref.frame is None:
            learnt_from = str(part.get("frame") or "") if "origin" in needs else ""
            return Dataset(part=part, parts=parts, origin=self._store.load(learnt_from) if learnt_from else {})
        table, rows = self.rows(ref)
        features: Any = None
        columns: tuple[str, ...] = ()
        levels: dict[str, tuple[str, ...]] = {}
        unfit = self._tables.unfit(table, ref.columns, rows) if "unfit" in needs else {}
        if "X" in needs:
            wanted = levels if "levels" in needs else None
            features, columns = self._tables.features(
                table,
                ref.columns,
                rows,
                missing="missing" in needs,
                parts="parts" in needs,
                levels=wanted,
                without=unfit,
            )
        if "records" in needs:
            records = self._tables.records(table, ref.columns, rows)
            return Dataset(records=records, columns=records.columns, label=self._tables.label_of(table), part=part)
        label = None
        if "y" in needs:
            if not ref.label:
                raise DataError(f"{self._endpoint.me} was given the label's role without the name of a label.")
            label = self._tables.label(table, ref.label, rows)
        return Dataset(
            X=features,
            y=label,
            columns=columns,
            label=ref.label,
            part=part,
            parts=parts,
            levels=levels,
            unfit=unfit,
        )

    def _used(self, join: m.Join, data: Dataset) -> Used | None:
        """Which rows those are; None where a role reads none of a table."""
        ref = join.data
        if ref.table is not None:
            return Used(ref.table, ref.on) if data.ids is not None else None
        if ref.frame is None:
            return None
        table, rows = self.rows(ref)
        return Used(table, list(self._store.load(ref.frame).get("on") or ()), rows)

    def rows(self, ref: m.DataRef) -> tuple[str, npt.NDArray[np.int64]]:
        """Which table a frame's rows lie in, and their positions there, in the frame's order."""
        frame = self._store.load(str(ref.frame))
        table = str(frame["table"])
        self._check_unchanged(table, frame, "aligned. Align")
        index: npt.NDArray[np.int64] = np.asarray(frame["index"], dtype=np.int64)
        if ref.rows is None:
            return table, index
        if ref.rows.ndim != 1 or ref.rows.dtype != np.int64:
            raise DataError("rows of an aligned frame are asked for by a list of positions.")
        if len(ref.rows) and (ref.rows.min() < 0 or ref.rows.max() >= len(index)):
            raise DataError(f"positions outside the aligned frame of {len(index)} rows were asked for.")
        if len(np.unique(ref.rows)) != len(ref.rows):
            # a "group" of one row, repeated, would pass every minimum on the size of groups
            raise Refused(
                f"{self._endpoint.me} was asked for the same row more than once; each row of a frame counts once.",
                member=self._endpoint.me,
                rule="distinct rows",
            )
        return table, index[ref.rows]

    def _check_unchanged(self, table: str, part: Mapping[str, Any], done: str) -> None:
        if part.get("table") != table or part.get("digest") != self._tables.digest(table):
            raise DataError(
                f"table {table!r} of {self._endpoint.me} has changed since it was {done} again, then go on."
            )

    def _keep(self, join: m.Join, outcome: Any, result: m.MemberResult, terms: Terms) -> m.MemberResult:
        private = {**outcome.private, **terms.keep}
        ref = join.data
        if ref.table is not None:
            private |= {"table": ref.table, "on": list(ref.on), "digest": self._tables.digest(ref.table)}
        elif ref.frame is not None:
            private.setdefault("frame", ref.frame)
        private |= {"protocol": join.protocol, "role": join.role}
        if outcome.table is not None:
            name, columns = outcome.table
            table, rows = self.rows(ref)
            origin, on, index = self._origin(ref)
            made = b"".join(encode(Part(values=dict(outcome.private))))
            recipe = hashlib.sha256(self._recipe(ref).encode() + made).hexdigest()
            self._tables.save_rows(name, table, rows, columns, by_rules=outcome.by_rules, recipe=recipe)
            # its rows are the frame's, in their order: an aligned frame on the new table, under this run's id
            private |= {"table": name, "index": np.arange(len(rows)), "digest": self._tables.digest(name)}
            private["origin"] = {"table": origin, "on": on, "index": index}
            private["recipe"] = recipe
        elif ref.frame is not None and (made_by := self._recipe(ref)):
            private["trained_on"] = made_by
        self._store.save(join.run, private)
        public = dict(result.public)
        if self._policy.releases("coefficients"):
            for name in ("coef", "std_err"):
                if name in private:
                    public[name] = np.asarray(private[name], dtype=np.float64)
            if "card" in private:
                public["card"] = private["card"]
        return m.MemberResult(
            role=result.role,
            public=public,
            operations=result.operations,
            bytes_out=result.bytes_out,
            bytes_in=result.bytes_in,
        )
