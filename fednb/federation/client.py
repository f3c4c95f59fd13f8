"""The federation as its user sees it: members, tables, alignment and runs, from a notebook, a script or a kernel.

One class serves the analyst's process (over the hub), the coordinator's kernel (over its agent's pipe) and a
simulation (threads): they differ only in the endpoint that it is given.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fednb.errors import DataError, LinkError, PeerLost, RunCancelled
from fednb.federation import messages as m
from fednb.federation.alignment import described, figures, id_columns, of_role, protocol_of
from fednb.federation.frame import VerticalFrame
from fednb.federation.leaving import leaving
from fednb.federation.prepared import PreparedFigures, PreparedSet
from fednb.federation.progress import RunProgress, follow
from fednb.federation.result import RunResult, rebuilt
from fednb.federation.views import ComparisonView, bundle
from fednb.text import plain
from fednb.wire.endpoint import Conversation, Endpoint, Presence
from fednb.wire.message import Message

if TYPE_CHECKING:
    import pandas as pd

M = TypeVar("M", bound=Message)

log = logging.getLogger("fednb.client")

STATUS_SECONDS = 5.0  # a question about the state of things is answered by then, or not
TRAININGS = ("vertical_logistic", "vertical_linear", "vertical_poisson")  # protocols whose cost is worth a table
FITS = (*TRAININGS, "vertical_boosting", "own_logistic")  # what is compared and tracked
RECONNECT_SECONDS = 60.0  # how long to look for a coordinator that went away while a run is watched


class RunsFigure:
    """Fits beside each other, as a notebook with fednb loaded draws them."""

    def __init__(self, view: ComparisonView) -> None:
        self._view = view

    def view(self) -> ComparisonView:
        return self._view

    def __repr__(self) -> str:
        return self._view.plain()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self._view)


class Federation:
    """A connection to a federation. Close it, or use it as a context manager.

    Made by `fednb.connect()` and `fednb.simulate()`; preloaded as `fed` in coordinator cells.
    """

    def __init__(self, endpoint: Endpoint, coordinator: str, *, on_close: Callable[[], None] | None = None) -> None:
        self.endpoint = endpoint
        self.coordinator = coordinator
        self.iterations: dict[str, int] = {}  # that fits in this session took, by what they were asked to do
        self._on_close = on_close
        self._closed = False

    @property
    def me(self) -> str:
        """This process's address."""
        return self.endpoint.me

    @property
    def parties(self) -> tuple[str, ...]:
        """Members that hold tables."""
        return tuple(sorted(name for name, seen in self.members().items() if seen.kind == "party"))

    def members(self) -> Mapping[str, Presence]:
        """Every member, up or down."""
        return self.endpoint.members()

    def tables(self) -> pd.DataFrame:
        """One row a table: party, table, rows, columns, id, label. Names and counts; never values."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "party": info.member,
                    "table": plain(info.name, 100),
                    "rows": info.rows,
                    "columns": len(info.columns),
                    "id": ", ".join(plain(c.name, 100) for c in info.columns if c.role == "id"),
                    "label": ", ".join(plain(c.name, 100) for c in info.columns if c.role == "label"),
                }
                for info in self.describe().tables
            ],
            columns=["party", "table", "rows", "columns", "id", "label"],
        )

    def describe(self) -> m.Tables:
        """What `tables()` shows, as it came: every party's tables with their columns, and its mode."""
        return self._ask(m.ListTables(), m.Tables)

    def align(
        self,
        tables: Mapping[str, str],
        on: str | Sequence[str] | Mapping[str, str | Sequence[str]],
        *,
        prepared: PreparedSet | None = None,
        method: str = "ecdh",
    ) -> VerticalFrame:
        """Find the rows that all parties share, by private set intersection on their ids.

        Parameters
        ----------
        tables : the table of each party, such as {"bank": "loans", "agency": "invoices"}; two parties or more.
        on : the id: a column name, a list of names (a composite id), or these by party.
        prepared : a large set from `prepare`: the alignment then costs what the small one does, and can be linked with
            others of that epoch.
        method : "ecdh", Diffie-Hellman on Curve25519; or "spu", SecretFlow's library, which is faster for large sets of
            two parties that keep to the protocol, and runs where both owners have installed it and said yes.

        Neither party learns the other's unmatched ids (by "spu": if both keep to the protocol); the coordinator learns
        sizes only.
        Raises DataError (unknown table or column, duplicates, nothing in common), Refused, RunFailed.
        """
        if len(tables) < 2:
            raise DataError("an alignment needs the tables of two parties or more, such as {'bank': 'loans', ...}.")
        protocol = protocol_of(method, len(tables), prepared is not None)
        keys = id_columns(tables, on)
        known = described(self.describe(), self.parties, tables, keys)
        request: dict[str, Any] = {
            "protocol": protocol,
            "cast": {"party": list(tables), "coordinator": [self.coordinator]},
            "data": {party: m.DataRef(table=table, on=keys[party]) for party, table in tables.items()},
        }
        if prepared is not None:
            request = prepared.request(tables, keys, self.coordinator)
        title = "Alignment of " + ", ".join(f"{party}.{table}" for party, table in tables.items())
        result = self.run(**request, title=title)
        view = figures(result, tables, keys, self.coordinator)
        return VerticalFrame(
            self,
            result.run,
            tables=tables,
            columns=of_role(known, "feature"),
            labels=of_role(known, "label"),
            rows=view.matched,
            alignment=view,
        )

    def prepare(
        self,
        table: Mapping[str, str],
        *,
        for_party: str,
        on: str | Sequence[str],
        days: float = 30.0,
    ) -> PreparedSet:
        """Prepare a large table once, {"agency": "register"}, for many alignments with `for_party`'s small ones.

        For `days` both parties keep the secrets of this set, so alignments with it can be linked: the large party and
        the coordinator see which ids of the small one come again, though not what they are (docs/protocols.md).
        """
        if len(table) != 1 or for_party in table:
            raise DataError("prepare takes one party's table, such as {'agency': 'register'}, and for_party another.")
        ((party, name),) = table.items()
        keys = id_columns(table, on)
        described(self.describe(), self.parties, table, keys)
        result = self.run(
            "psi_prepare",
            cast={"large": [party], "small": [for_party], "coordinator": [self.coordinator]},
            data={party: m.DataRef(table=name, on=keys[party])},
            params={"days": days},
            title=f"Preparation of {party}.{name} for {for_party}",
        )
        said = result.read(party, PreparedFigures)
        return PreparedSet(result.run, party, name, tuple(keys[party]), for_party, said.ids, said.until)

    # ------------------------------------------------------------ runs

    def run(
        self,
        protocol: str,
        *,
        cast: Mapping[str, Sequence[str]],
        data: Mapping[str, m.DataRef] | None = None,
        params: Mapping[str, Any] | None = None,
        title: str = "",
        estimate: m.Estimate | None = None,
    ) -> RunResult:
        """Run a protocol to its end, showing progress. An interrupt (Ctrl-C) cancels it at every member; it
        goes on when the notebook is restarted or shut down.

        Raises what the first failing member raised, where fednb knows the type, else RunFailed.
        """
        run = self.start(protocol, cast=cast, data=data, params=params, title=title, estimate=estimate)
        return self._follow(run, title or protocol)

    def _follow(self, run: str, title: str) -> RunResult:
        try:
            ended = follow(run, title, self.watch(run), self)
        except KeyboardInterrupt:
            if not leaving():
                self.cancel(run)
            raise
        if ended.status == "ok":
            return RunResult(run, ended.results, ended.seconds, tuple(plain(notice) for notice in ended.notices))
        if ended.status == "cancelled":
            raise RunCancelled(f"run {run} was cancelled: {ended.error}", run=run)
        raise rebuilt(ended.error, ended.error_type, ended.member, ended.rule, run=run)

    def start(
        self,
        protocol: str,
        *,
        cast: Mapping[str, Sequence[str]],
        data: Mapping[str, m.DataRef] | None = None,
        params: Mapping[str, Any] | None = None,
        title: str = "",
        estimate: m.Estimate | None = None,
    ) -> str:
        """Begin a run and return its id at once; it goes on when this process ends."""
        request = m.StartRun(
            protocol=protocol,
            cast={role: list(players) for role, players in cast.items()},
            data=dict(data or {}),
            params=dict(params or {}),
            title=title,
            estimate=estimate,
        )
        return self._ask(request, m.RunStarted).run

    def resume(self, run: str) -> RunResult:
        """Continue a run that failed half-way (a member was killed, say) from the last step all members have.

        The result is the same as if nothing had happened. Raises DataError when the run is going on or has ended well.
        """
        self._ask(m.ResumeRun(run=run), m.RunStarted)
        return self._follow(run, f"Resumed run {run}")

    def watch(
        self, run: str, since: int = 0, *, away: Callable[[str], None] = log.warning
    ) -> Iterator[m.RunEvent | m.RunEnded]:
        """What happens in a run, from event `since` on, until it ends.

        Reconnects when the coordinator went away; `away` is told that it did. Raises PeerLost when it does not come
        back, or its process has ended.
        """
        lost: float | None = None
        while True:
            talk = self._talk()
            try:
                talk.send(m.WatchRun(run=run, since=since))
                while True:
                    item = talk.recv(m.RunEvent, m.RunEnded, m.Failed)
                    if isinstance(item, m.Failed):
                        raise rebuilt(item.error, item.error_type, item.member, item.rule)
                    lost = None
                    yield item
                    if isinstance(item, m.RunEnded):
                        return
                    since = item.seq + 1
            except PeerLost as error:
                seen = self.members()[self.coordinator]
                lost = lost or time.monotonic()
                if seen.over or time.monotonic() - lost > RECONNECT_SECONDS:
                    raise PeerLost(
                        f"{self.coordinator} {seen.reason or 'went away'} while run {run} was going on. When its owner "
                        f"has started it again, fed.resume({run!r}) continues the run.",
                        member=self.coordinator,
                    ) from error
                if not seen.up:
                    away(
                        f"{self.coordinator} {seen.reason}: waiting up to {RECONNECT_SECONDS:g} s for it to come back. "
                        "Where only its connection is broken, the run goes on."
                    )
                self._wait_for_coordinator()
            finally:
                talk.close()

    def cancel(self, run: str) -> None:
        """Ask every member of a run to stop."""
        self._ask(m.CancelRun(run=run), m.Ok)

    def runs(self) -> pd.DataFrame:
        """The coordinator's runs, newest first, also those that other notebooks began."""
        import pandas as pd

        found = self.list_runs()
        return pd.DataFrame(
            [
                {
                    "run": plain(info.run, 64),
                    "title": plain(info.title, 200),
                    "status": info.status,
                    "started": pd.Timestamp(info.started, unit="s", tz="UTC").floor("s"),
                    "seconds": round(info.seconds, 1),
                    "by": plain(info.by, 100),
                    "members": plain(", ".join(player for players in info.cast.values() for player in players)),
                    "error": plain(info.error),
                }
                for info in found
            ],
            columns=["run", "title", "status", "started", "seconds", "by", "members", "error"],
        )

    def list_runs(self, limit: int = 50) -> list[m.RunInfo]:
        """What `runs()` shows, as it came."""
        return self._ask(m.ListRuns(limit=limit), m.Runs).runs

    def compare_runs(self, runs: Sequence[str] = ()) -> pd.DataFrame:
        """Fits beside each other: a line each, with the parameters in which they differ and the figures of each.

        `runs` : ids; none: the latest fits that ended well. A fit has its own figures and those of its latest
        evaluation, of scores that its model gave. Raises DataError for a run that is not among the latest 1,000.
        """
        from fednb.federation.compared import table

        return table(self._ask(m.ListRuns(limit=1_000), m.Runs).runs, runs, FITS)

    def runs_figure(self, runs: Sequence[str] = ()) -> RunsFigure:
        """The same fits in one figure, in a notebook: AUC and KS with their intervals, and progress by iteration."""
        from fednb.federation.compared import chosen_of, view

        known = self._ask(m.ListRuns(limit=1_000), m.Runs).runs
        chosen = chosen_of(known, runs, FITS)
        if not chosen:
            raise DataError("there is no fit yet to be shown.")
        progress = {info.run: self._progress(info.run) for info in chosen if info.status != "running"}
        names = [name for each in progress.values() if (name := each.curve())]
        curve = max(sorted(set(names)), key=names.count, default="")
        curves = {
            run: [value for _, value in next(iter(each.curves.get(curve, {"": []}).values()))]
            for run, each in progress.items()
        }
        return RunsFigure(view(known, runs, FITS, curves, curve.replace("_", " ")))

    def _progress(self, run: str) -> RunProgress:
        found = RunProgress(run)
        for message in self.watch(run):
            if isinstance(message, m.RunEvent):
                found.add(message)
        return found

    def export_mlflow(
        self, runs: Sequence[str] = (), *, experiment: str = "fednb", tracking_uri: str | None = None
    ) -> dict[str, str]:
        """Write runs to MLflow: parameters, figures, progress and receipts. Returns MLflow's id by run.

        `runs` : ids; none: the latest fits that ended. `tracking_uri` : None means what MLflow is set to. A run that is
        there already is left alone. Raises ConfigError without MLflow (fednb[mlflow]), DataError for a run that has not
        ended.
        """
        from fednb.federation.tracking import export

        known = self._ask(m.ListRuns(limit=1_000), m.Runs).runs
        ended = [info.run for info in known if info.protocol in FITS and info.status != "running"]
        return export(self, known, runs or ended, experiment, tracking_uri)

    def receipts(self, run: str | None = None) -> pd.DataFrame:
        """What left each member in a run (by default the newest), to whom, how much, and under which rule.

        Empty when there was no run. Raises DataError for a run that the coordinator does not know, or that goes on.
        """
        from fednb.federation.receipts import table

        if run is None:
            found = self.list_runs(1)
            if not found or found[0].status == "running":
                return table([])
            run = found[0].run
        elif any(info.run == run and info.status == "running" for info in self.list_runs()):
            raise DataError(f"run {run} is going on; its receipts come with its end.")
        (ended,) = [item for item in self.watch(run) if isinstance(item, m.RunEnded)]
        return table(ended.receipts)

    def costs(self) -> pd.DataFrame:
        """What the latest trainings took, newest first, beside what `model.cost(...)` estimated where it was asked."""
        import pandas as pd

        found = [info for info in self.list_runs() if info.protocol in TRAININGS]
        return pd.DataFrame(
            [
                {
                    "run": info.run,
                    "title": plain(info.title, 200),
                    "status": info.status,
                    "estimated s": info.estimate and round(info.estimate.seconds, 1),
                    "s": round(info.seconds, 1),
                    "estimated MB": info.estimate and round(info.estimate.bytes / 1e6, 2),
                    "MB": round(info.bytes / 1e6, 2) if info.status == "ok" else None,
                }
                for info in found
            ],
            columns=["run", "title", "status", "estimated s", "s", "estimated MB", "MB"],
        )

    def placement(self) -> str:
        """The party whose organisation runs the coordinator; "" when it is apart from all, as it should be."""
        return plain(self._ask(m.AskPlacement(), m.Placement, timeout=STATUS_SECONDS).organisation, 64)

    def doctor(self) -> pd.DataFrame:
        """One row a member: kind, whether it is up, its version and the round trip to it in milliseconds.

        A coordinator inside a party's organisation says so in a further column, "inside".
        """
        import pandas as pd

        found = pd.DataFrame(
            [
                {
                    "member": name,
                    "kind": seen.kind,
                    "up": seen.up,
                    "version": plain(seen.version, 100),
                    "ms": None if seen.seconds is None else round(1000 * seen.seconds, 1),
                }
                for name, seen in sorted(self.members().items())
            ],
            columns=["member", "kind", "up", "version", "ms"],
        )
        organisation = ""
        if self.members()[self.coordinator].up:
            try:
                organisation = self.placement()
            except LinkError:
                organisation = "not known: it does not answer"  # of all questions, this one must not wait long
        if organisation:
            found["inside"] = [organisation if name == self.coordinator else "" for name in found["member"]]
        return found

    def close(self) -> None:
        """Disconnect. Runs go on."""
        if self._closed:
            return
        self._closed = True
        self.endpoint.close()
        if self._on_close:
            self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Federation of {', '.join(self.parties)}; coordinator {self.coordinator}; this is {self.me}"

    # ------------------------------------------------------------ inside

    def _talk(self) -> Conversation:
        return self.endpoint.open(self.coordinator, f"runs/{secrets.token_hex(8)}")

    def _ask(self, request: Message, kind: type[M], timeout: float = 120.0) -> M:
        talk = self._talk()
        try:
            talk.send(request)
            answer = talk.recv(kind, m.Failed, timeout=timeout)
        finally:
            talk.close()
        if isinstance(answer, m.Failed):
            raise rebuilt(answer.error, answer.error_type, answer.member, answer.rule)
        return answer

    def _wait_for_coordinator(self) -> None:
        from threading import Event

        back = Event()
        self.endpoint.watch(lambda seen: back.set() if seen.name == self.coordinator and seen.up else None)
        if not self.members()[self.coordinator].up:
            back.wait(RECONNECT_SECONDS)
