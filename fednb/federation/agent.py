"""A party or a coordinator at work: its services on the network, and the kernels behind it.

party          PartyService (its part in runs)     kernels whose `fed` is the party's own tables
coordinator    CoordinatorService (runs)           kernels whose `fed` is a Federation over the pipe
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fednb.config import CoordinatorConfig, PartyConfig
from fednb.errors import ConfigError, DataError
from fednb.federation import messages as m
from fednb.federation.asks import AskDesk
from fednb.federation.cluster import Cluster
from fednb.federation.coordinator import CoordinatorService
from fednb.federation.desk import Desk
from fednb.federation.gate_desk import GateDesk
from fednb.federation.kernel_host import KernelHost, Pipe
from fednb.federation.online_desk import SOCKET, OnlineDesk
from fednb.federation.party import PartyService
from fednb.federation.receipts import Book
from fednb.federation.runs import RunStore
from fednb.federation.spu_engine import SpuEngine
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.policy.approvals import ApprovalStore
from fednb.policy.audit import AuditLog
from fednb.policy.mode import MemberPolicy
from fednb.policy.protocol_policy import ProtocolPolicy
from fednb.policy.quota import QuotaLedger
from fednb.policy.sandbox import Limits, Sandbox, find
from fednb.protocols import lookup
from fednb.protocols.base import Protocol
from fednb.version import __version__
from fednb.wire.endpoint import Conversation, Endpoint

log = logging.getLogger("fednb.agent")

KERNEL_SIDE = "fednb.federation.kernel_side"


class Agent:
    """What one member runs beside its endpoint. `close` leaves no kernel behind; it does not close the endpoint."""

    def __init__(self, host: KernelHost, warm: Callable[[], object], close: Callable[[str], None]) -> None:
        self.host = host
        self._warm = warm
        self._close = close

    def prewarm(self) -> None:
        """Do now, on a thread of its own, what the first cell and the first question would wait for."""

        def warm() -> None:
            self.host.prewarm()  # first: a cell waits longer for its kernel than for a table
            try:
                self._warm()
            except Exception as error:  # whoever asks later is told properly
                log.warning("not ready in advance: %s", error)

        threading.Thread(target=warm, name="fednb-prewarm", daemon=True).start()

    def close(self, lost: str = "") -> None:
        """Stop. `lost` is the member whose death is the reason, if that is the reason."""
        self._close(lost)
        self.host.close()


def start_party(
    endpoint: Endpoint,
    settings: PartyConfig,
    home: Path,
    *,
    coordinator: str,
    run_folder: Path,
    pipe: Pipe,
    threads: int = 1,
    sign: Callable[[bytes], bytes] | None = None,
) -> Agent:
    """Serve as a party. Raises ConfigError for tables, protocols or a cluster not as the federation file says."""
    tables = TableStore(settings.name, settings.tables, home / "tables")
    tables.check()
    sandbox = sandbox_of(settings, home)
    find_protocol = finder(settings.protocols)
    _check_named(settings, find_protocol)
    policy = MemberPolicy(
        settings.name,
        settings.mode,
        settings.release,
        settings.accept_coordinator_at,
        settings.analysts,
        approval=settings.approval,
        online=settings.online,
    )
    store = MemberStore(home / "runs")
    book = _book(settings.name, home, sign, mode=settings.mode, tables=sorted(settings.tables))
    cluster = Cluster(settings.name, settings.dask) if settings.dask else None
    online = OnlineDesk(endpoint, tables, store, coordinator)
    PartyService(
        endpoint,
        tables,
        policy,
        store,
        coordinator=coordinator,
        lookup=find_protocol,
        threads=threads,
        executor=cluster.executor if cluster else None,
        book=book,
        rules=ProtocolPolicy(settings.name, settings.rules, settings.analysts, home / "accounts", settings.online),
        asks=online.asks,
        engine=partial(SpuEngine, settings.name, _private(settings, home)),
    )
    online.serve(pipe(run_folder / SOCKET), run_folder / SOCKET, home)
    gate = GateDesk(tables, policy, settings.guard, home, book) if settings.mode == "guarded" else None
    desk = Desk(tables, policy, store, lambda: host.lock(), gate)
    host = KernelHost(
        endpoint,
        policy,
        run_folder=run_folder,
        work_folder=home / "work",
        env={"FEDNB_MEMBER": settings.name, "FEDNB_KIND": "party"},
        extensions=(KERNEL_SIDE,),
        pipe=pipe,
        attach=desk.attach,
        book=book,
        sandbox=sandbox,
        approves=settings.approval,
    )
    asks = _asks(endpoint, policy, tables, sandbox, book, settings, home, run_folder)

    def close(lost: str) -> None:
        for each in (online, asks, cluster, gate):
            if each is not None:
                each.close()

    return Agent(host, tables.describe, close)


def _asks(
    endpoint: Endpoint,
    policy: MemberPolicy,
    tables: TableStore,
    sandbox: Sandbox | None,
    book: Book,
    settings: PartyConfig,
    home: Path,
    run_folder: Path,
) -> AskDesk | None:
    if not settings.approval or sandbox is None:
        return None
    return AskDesk(
        endpoint,
        policy,
        tables,
        ApprovalStore(home / "approvals"),
        sandbox,
        book,
        declared=settings.tables,
        run_folder=run_folder,
        seconds=float(settings.limits.cpu_seconds),
    )


def start_coordinator(
    endpoint: Endpoint,
    settings: CoordinatorConfig,
    home: Path,
    *,
    run_folder: Path,
    pipe: Pipe,
    preload: Sequence[str] = (),
    threads: int = 1,
    sign: Callable[[bytes], bytes] | None = None,
) -> Agent:
    """Serve as the coordinator; its kernels start with the public names of the modules in `preload`."""
    book = _book(settings.name, home, sign, mode=settings.mode, organisation=settings.organisation)
    service = CoordinatorService(
        endpoint,
        MemberStore(home / "runs"),
        RunStore(home / "log"),
        QuotaLedger(home / "quota.json", multiple=settings.decryption_quota),
        lookup=finder(settings.protocols),
        threads=threads,
        organisation=settings.organisation,
        book=book,
    )

    def attach(kernel: Endpoint, analyst: str) -> None:
        service.serve(kernel, by=analyst)
        kernel.listen("members/", lambda talk: _tell_members(talk, endpoint))

    host = KernelHost(
        endpoint,
        MemberPolicy(settings.name, settings.mode),
        run_folder=run_folder,
        work_folder=home / "work",
        env={"FEDNB_MEMBER": settings.name, "FEDNB_KIND": "coordinator", "FEDNB_PRELOAD": ",".join(preload)},
        extensions=(KERNEL_SIDE,),
        pipe=pipe,
        attach=attach,
        interrupt_abandoned=False,
        book=book,
    )
    return Agent(host, lambda: None, service.close)


def sandbox_of(settings: PartyConfig, home: Path) -> Sandbox | None:
    """Raises ConfigError when kernels are to have one and none works here: then the party does not start."""
    if settings.sandbox == "none" or (settings.mode == "protocol-only" and not settings.approval):
        return None
    limits = settings.limits
    return Sandbox(
        find(settings.sandbox),
        Limits(memory=limits.memory_mb << 20, cpu=limits.cpu_seconds, file=limits.file_mb << 20),
        private=_private(settings, home),
    )


def _private(settings: PartyConfig, home: Path) -> list[Path]:
    """What nothing sandboxed may see."""
    return [home, *(table.path for table in settings.tables.values() if table.path is not None)]


def _book(member: str, home: Path, sign: Callable[[bytes], bytes] | None, **details: object) -> Book:
    book = Book(member, AuditLog(home / "audit", member, sign))
    book.note("started", version=__version__, **details)
    return book


def _check_named(settings: PartyConfig, find: Callable[[str], Protocol]) -> None:
    """A misspelt protocol among the rules would be a rule that never applies. Raises ConfigError."""
    at = f"party.{settings.name}.protocols"
    named = {name: f"{at}.allow" for name in settings.rules.allow if name != "*"}
    for name, where in {**named, **{name: f"{at}.{name}" for name in settings.rules.of}}.items():
        try:
            find(name)
        except DataError as error:
            raise ConfigError(f"{where}: {error}") from None


def _tell_members(talk: Conversation, endpoint: Endpoint) -> None:
    talk.recv(m.ListMembers)
    talk.send(m.Members(list(endpoint.members().values())))


def finder(names: Sequence[str]) -> Callable[[str], Protocol]:
    """Looks protocols up: the built-in ones and those that the owner installed as "module:attribute".

    Raises ConfigError when one of those cannot be had.
    """
    installed: dict[str, Protocol] = {}
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"the protocol {name!r} cannot be loaded: {error}") from None
        if not isinstance(found, Protocol):
            raise ConfigError(f"{name!r} is not a protocol but a {type(found).__name__}.")
        installed[found.name] = found
    return lambda name: lookup(name, installed)
