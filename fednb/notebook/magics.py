"""The magics: `%%party`, `%%coordinator` and `%fed`.

A magic's line is taken as written: `{names}` and `$names` of local variables are not put in, because what looks like
one notebook is several machines, and a value must not travel to another by accident.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import no_var_expand

from fednb.errors import FednbError, NotConnected
from fednb.federation.cells import CellRun
from fednb.federation.rehearsal import Rehearsal
from fednb.federation.views import encode
from fednb.notebook.cell import PendingCell, RemoteCell, interrupts
from fednb.notebook.replay import Areas, Pieces
from fednb.notebook.session import Session

OPTIONS = {
    "--noblock": "go on at once; the value is a future: .result(), .done(), .cancel()",
    "--timeout": "SECONDS: interrupt the cell where it is not done by then, and raise LinkTimeout",
    "-o": "NAME: bring this variable back (a dict by party when there are several)",
    "--dry-run": "run it here instead, on rows that the party invents, before you ask its owner",
    "--ask": '"REASON": ask the owner to approve the cell; the same cell again tells how it stands, or what it said',
}
COMMANDS = {
    "connect": "[FILE]  connect this notebook: a federation file or a member's folder; without, the last `fednb up`",
    "status": "every member: up or down, its version, the round trip to it",
    "doctor": "the same as status",
    "tables": "every party's tables: rows, columns, id and label; never values",
    "runs": "[compare | RUN RUN ...]  the coordinator's runs, also of other notebooks; or fits in a figure and a table",
    "receipt": "[RUN]  what left each member for the last cell and the newest run, or for that run, and by which rule",
    "cost": "what the latest fits took, beside what model.cost(frame, y) had estimated",
    "asked": "every cell that you asked owners to approve, and how it stands",
    "mock": "PARTY.TABLE  invented rows of a table's shape, to write cells on that an owner shall approve",
    "inbox": "HOME [FILE]  for an owner: what analysts ask to be approved, where this member's home is",
    "restart": "NAME[,NAME...|all]  a fresh kernel there; its variables are gone",
}

COORDINATOR_OPTIONS = {name: text for name, text in OPTIONS.items() if name != "--dry-run"}


def _help(where: str, usage: str, options: Mapping[str, str]) -> str:
    lines = [f"Run the cell {where}.", "", f"    {usage}", ""]
    return "\n".join([*lines, *(f"    {option:<11} {text}" for option, text in options.items())])


PARTY_HELP = _help(
    "at one party or several, on that party's own data",
    '%%party NAME[,NAME...|all] [--noblock] [--timeout SECONDS] [-o NAME] [--dry-run] [--ask "REASON"]',
    OPTIONS,
)
COORDINATOR_HELP = _help(
    "at the coordinator",
    '%%coordinator [--noblock] [--timeout SECONDS] [-o NAME] [--ask "REASON"]',
    COORDINATOR_OPTIONS,
)
FED_HELP = "The federation that this notebook is connected to.\n\n" + "\n".join(
    f"    %fed {command:<8} {text}" for command, text in COMMANDS.items()
)


class Magics:
    """The magics of one notebook."""

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        self._shell = shell
        self._session = session

    def register(self) -> None:
        """Make them known to IPython."""
        for kind, name, magic, text in (
            ("cell", "party", self.party, PARTY_HELP),
            ("cell", "coordinator", self.coordinator, COORDINATOR_HELP),
            ("line", "fed", self.fed, FED_HELP),
        ):
            function = _magic(magic, text)
            function.session = self._session  # type: ignore[attr-defined]  # how a second %load_ext finds the first
            self._shell.magics_manager.register_function(function, kind, name)

    def party(self, line: str, cell: str) -> PendingCell | None:
        options = _options("%%party", line)
        if not options.names and self._session.attached == "":
            raise NotConnected(
                "this notebook is attached to no party: start Jupyter with FEDNB_PARTY set to one of "
                f"{', '.join(self._session.members())}, or begin the cell with %%party NAME."
            )
        if not options.names:
            raise UsageError("%%party needs the name of a party, names with commas between them, or all.")
        return self._run(self._session.parties(options.names), options, cell)

    def coordinator(self, line: str, cell: str) -> PendingCell | None:
        options = _options("%%coordinator", line)
        if options.names:
            raise UsageError(f"%%coordinator takes no name, but got {' '.join(options.names)!r}.")
        if options.dry_run:
            raise UsageError("%%coordinator has no tables, so there are no invented rows to try a cell on.")
        return self._run([self._session.federation.coordinator], options, cell)

    def fed(self, line: str) -> Any:
        command, _, rest = line.strip().partition(" ")
        if not command:
            print(FED_HELP)
        elif command == "connect":
            self._connect(rest.strip())
        elif command not in COMMANDS:
            raise UsageError(f"%fed has no command {command!r}; it has {', '.join(COMMANDS)}.")
        elif command == "restart":
            self._restart(rest)
        elif command == "inbox":
            return self._inbox(rest)
        elif command == "mock":
            party, _, table = rest.strip().partition(".")
            if not table:
                raise UsageError("%fed mock needs a party and its table, as in %fed mock agency.invoices.")
            return self._session.cells.mock(self._session.parties([party])[0], table)
        elif command == "receipt":
            return self._session.receipts(rest.strip())
        elif command == "runs" and rest.strip():
            words = rest.replace(",", " ").split()
            return self._compare([] if words == ["compare"] else words)
        elif rest.strip():
            raise UsageError(f"%fed {command} takes nothing more, but got {rest.strip()!r}.")
        elif command in ("status", "doctor"):
            return self._session.federation.doctor()
        elif command == "tables":
            return self._session.federation.tables()
        elif command == "asked":
            return self._session.asked()
        elif command == "cost":
            return self._session.federation.costs()
        else:
            return self._session.federation.runs()
        return None

    def _connect(self, profile: str) -> None:
        from fednb.federation.connect import connect

        words = shlex.split(profile)
        if len(words) > 1:
            raise UsageError(f"%fed connect takes one file or folder, but got {len(words)}: quote a name with blanks.")
        federation = connect(words[0] if words else None)
        self._session.use(federation)
        down = [name for name, seen in sorted(federation.members().items()) if not seen.up and seen.kind != "analyst"]
        print(f"Connected as {federation.me} to {', '.join(federation.parties)} and {federation.coordinator}.")
        if down:
            print(f"Down: {', '.join(down)}.")

    def _inbox(self, line: str) -> Any:
        from fednb.notebook.widgets import inbox

        words = shlex.split(line)
        if not 1 <= len(words) <= 2:
            raise UsageError(
                "%fed inbox needs the home folder of the member that you own, as in %fed inbox .fednb/bank."
            )
        shown = inbox.show(*words)
        self._session.owner.open(words[0], *words[1:])  # in the sidebar too
        return shown

    def _compare(self, runs: list[str]) -> Any:
        """A figure, and the table below it."""
        federation = self._session.federation
        found = federation.compare_runs(runs)
        if len(found):
            self._session.show_view(encode(federation.runs_figure(runs).view()))
        return found

    def _restart(self, names: str) -> None:
        members = self._session.parties(names.split() or [self._session.attached or ""])
        if not members:
            raise UsageError("%fed restart needs the name of a member, names with commas between them, or all.")
        for member in members:
            self._session.cells.restart(member)
            print(f"{member} has a fresh kernel.")

    def _run(self, members: list[str], options: argparse.Namespace, code: str) -> PendingCell | None:
        if options.noblock:
            cell, replay = self._send(members, options, code)
            return self._background(cell, replay, options.output)
        sent: list[RemoteCell] = []
        early = 0  # interrupts that came before the cell was known here; it may run over there already

        def interrupt() -> None:
            nonlocal early
            if sent:
                sent[0].interrupt()
            else:
                early += 1

        with interrupts(interrupt):
            cell, _ = self._send(members, options, code)
            sent.append(cell)
            for _ in range(early):
                cell.interrupt()
            cell.follow()
        self._assign(options.output, cell.result())
        return None

    def _send(self, members: list[str], options: argparse.Namespace, code: str) -> tuple[RemoteCell, Pieces | Areas]:
        session = self._session
        if options.dry_run:
            if options.output or options.noblock:
                raise UsageError("--dry-run goes with neither -o nor --noblock: it is for looking at.")
            run: CellRun = Rehearsal(session.cells, members, code)
        elif options.ask is not None:
            if options.output or options.noblock:
                raise UsageError("--ask goes with neither -o nor --noblock: what leaves is what the owner has seen.")
            run = session.cells.ask(members, code, options.ask)
        else:
            run = session.cells.execute(members, code, capture=options.output)
        session.last = run
        replay: Pieces | Areas
        if len(members) > 1 or options.noblock:
            replay = Areas(self._shell, members, session.looks(), session.show_view, background=options.noblock)
        else:
            replay = Pieces(self._shell, members[0], session.show_view)
        observed = session.log.observe(run, replay, lambda: cell.interrupt())
        cell = RemoteCell(run, observed, capture=options.output, timeout=options.timeout)
        return cell, replay

    def _background(self, cell: RemoteCell, replay: Pieces | Areas, output: Sequence[str]) -> PendingCell:
        # ipykernel files a thread's output under the cell that is current when it is written, unless told otherwise
        parent = self._shell.get_parent() if hasattr(self._shell, "get_parent") else None

        def work() -> None:
            if parent is not None and hasattr(self._shell, "set_thread_parent"):
                self._shell.set_thread_parent(parent)
            cell.follow()
            if not cell.failures:
                self._assign(output, cell.result())

        return PendingCell(cell, work, replay.refresh if isinstance(replay, Areas) else lambda: None)

    def _assign(self, output: Sequence[str], value: Any) -> None:
        if len(output) == 1:
            self._shell.user_ns[output[0]] = value
        elif output:
            by_name = zip(*value.values(), strict=True) if isinstance(value, dict) else value
            members = tuple(value) if isinstance(value, dict) else None
            for name, got in zip(output, by_name, strict=True):
                self._shell.user_ns[name] = dict(zip(members, got, strict=True)) if members else got


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. `{self.prog}?` shows how it is used.")


@cache  # building one costs more than sending the cell
def _parser(magic: str) -> argparse.ArgumentParser:
    # argparse would make a usage for every line it parses, and none is ever shown
    parser = _Parser(prog=magic, usage=f"{magic}?", add_help=False, allow_abbrev=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--noblock", action="store_true")
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS")
    parser.add_argument("-o", "--output", action="append", default=[], type=_name, metavar="NAME")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--ask", metavar="REASON")
    return parser


def _options(magic: str, line: str) -> argparse.Namespace:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{magic}: {error} in {line!r}.") from None
    return _parser(magic).parse_intermixed_args(words)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("it must be more than 0")
    return seconds


def _name(text: str) -> str:
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a variable")
    return text


def _magic(function: Callable[..., Any], text: str) -> Callable[..., Any]:
    """As IPython wants it: taken literally, with its help, and errors of ours shown without our own frames."""

    @wraps(function)
    def magic(*args: str) -> Any:
        try:
            return function(*args)
        except FednbError as error:
            if not hasattr(error, "_render_traceback_"):
                lines = [f"\x1b[31m{type(error).__name__}\x1b[0m: {error}"]
                error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
            raise

    magic.__doc__ = text
    return no_var_expand(magic)
