"""A federation over loopback whose members run cells as scripts, and an IPython that records what it publishes."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from msgspec import structs
from traitlets.config import Config

from fednb import notebook
from fednb.errors import LinkError
from fednb.federation import messages as m
from fednb.federation.client import Federation
from fednb.notebook.session import Session
from fednb.wire.endpoint import Conversation, Endpoint
from fednb.wire.loopback import Network

WAIT = 20.0


class ScriptedAgent:
    """Runs a cell as Python in which `stream`, `display`, `clear`, `hang` and so on say what the member sends."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.requests: list[Any] = []
        self.asks: list[m.AskState] = []
        self.mock = m.Mock("")
        self.interrupts: dict[str, threading.Event] = {}
        self.kills: dict[str, threading.Event] = {}
        self.go = threading.Event()  # what `gate()` in a cell waits for
        self.reached = threading.Event()  # set by `gate()`, `hang()` and `defy()`
        endpoint.listen("cells", self.serve)
        endpoint.listen("asks", self.serve)

    def serve(self, talk: Conversation) -> None:
        while True:
            got = talk.recv(m.Execute, m.Interrupt, m.Complete, m.Inspect, m.Restart, m.Ask, m.ListAsks, m.AskMock)
            self.requests.append(got)
            if isinstance(got, m.ListAsks):
                talk.send(m.Asks(got.query, list(self.asks)))
                continue
            if isinstance(got, m.AskMock):
                talk.send(structs.replace(self.mock, query=got.query))
                continue
            if isinstance(got, m.Ask):
                got = m.Execute(got.cell, got.code)
            if isinstance(got, m.Execute):
                self.interrupts[got.cell], self.kills[got.cell] = threading.Event(), threading.Event()
                threading.Thread(target=self.run, args=(talk, got), daemon=True).start()
            elif isinstance(got, m.Interrupt):
                (self.kills if got.kill else self.interrupts)[got.cell].set()
            elif isinstance(got, m.Complete):
                start = max(0, got.cursor - 2)
                talk.send(m.Completions(got.query, [f"{self.endpoint.me}_loans"], start, got.cursor, {}))
            elif isinstance(got, m.Restart):
                talk.send(m.Restarted(got.query))
            else:
                text = f"\x1b[31mType:\x1b[0m {got.code}@{got.cursor}"
                talk.send(m.Inspection(got.query, True, {"text/plain": text}))

    def run(self, talk: Conversation, request: m.Execute) -> None:
        with suppress(LinkError):  # a script may end the conversation, and a test may end before its script
            self.perform(talk, request)

    def perform(self, talk: Conversation, request: m.Execute) -> None:
        cell = request.cell
        status, reason = "ok", ""
        talk.send(m.CellStarted(cell))

        def hang() -> None:
            self.reached.set()
            if self.interrupts[cell].wait(WAIT):
                raise KeyboardInterrupt

        def defy() -> None:
            self.reached.set()
            self.kills[cell].wait(WAIT)
            raise SystemExit("killed")

        def gate() -> None:
            self.reached.set()
            assert self.go.wait(WAIT)

        def end(how: str, why: str = "") -> None:
            nonlocal status, reason
            status, reason = how, why

        scope: dict[str, Any] = {
            "me": self.endpoint.me,
            "stream": lambda text, name="stdout": talk.send(m.Stream(cell, name, text)),
            "display": lambda data, **rest: talk.send(m.Display(cell, data, **rest)),
            "clear": lambda wait=False: talk.send(m.ClearOutput(cell, wait)),
            "capture": lambda name, value: talk.send(m.Captured(cell, name, m.PlainValue(value))),
            "leave": lambda: talk.close("the agent was stopped"),
            **{"hang": hang, "defy": defy, "gate": gate, "end": end},
        }
        try:
            exec(compile(request.code, "Cell In[7]", "exec"), scope)
        except SystemExit as error:
            status, reason = "died", str(error)
        except KeyboardInterrupt:
            talk.send(m.CellError(cell, "KeyboardInterrupt", "", ["Traceback of the interrupt"]))
            status = "interrupted"
        except LinkError:
            raise
        except Exception as error:
            frames = traceback.format_exc().splitlines()
            lines = [f"\x1b[31m{type(error).__name__}\x1b[0m: {error}", *[f for f in frames if "Cell In" in f]]
            talk.send(m.CellError(cell, type(error).__name__, str(error), lines))
            status = "error"
        talk.send(m.CellDone(cell, status, 0.25, 7, reason))  # type: ignore[arg-type]


class World:
    """bank, agency and coordinator; `shell` is the analyst's, connected."""

    def __init__(self, shell: InteractiveShell) -> None:
        kinds = {"bank": "party", "agency": "party", "coordinator": "coordinator", "analyst": "analyst"}
        self.network = Network(kinds)
        self.agents = {
            name: ScriptedAgent(self.network.endpoint(name)) for name, kind in kinds.items() if kind != "analyst"
        }
        self.federation = Federation(self.network.endpoint("analyst#1"), "coordinator")
        self.shell = shell
        self.session: Session = notebook.load(shell)
        self.session.use(self.federation)

    @property
    def published(self) -> list[dict[str, Any]]:
        return self.shell.display_pub.outputs  # type: ignore[no-any-return]

    def party(self, line: str, cell: str) -> Any:
        return self.shell.run_cell_magic("party", line, cell)

    def screen(self) -> dict[str, dict[str, str]]:
        """What a front end shows in the end: display id -> bundle."""
        shown: dict[str, dict[str, str]] = {}
        for output in self.published:
            key = (output.get("transient") or {}).get("display_id") or f"anonymous-{len(shown)}"
            assert output.get("update", False) == (key in shown), "each display id is shown once, then updated"
            shown[key] = output["data"]
        return shown

    def area(self, member: str) -> dict[str, str]:
        """The last state of a member's area."""
        return [data for data in self.screen().values() if data["text/plain"].startswith(f"── {member} ")][-1]

    def close(self) -> None:
        self.session.close()
        for agent in self.agents.values():
            agent.go.set()
            for event in [*agent.interrupts.values(), *agent.kills.values()]:
                event.set()
            agent.endpoint.close()


def _shell(**config: Any) -> InteractiveShell:
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}, **config}))
    shell.display_pub = CapturingDisplayPublisher()
    return shell


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*, kernel: bool = True) -> World:
        shell = _shell()
        if kernel:  # what our code knows a notebook's shell by, with the two handlers that completion wraps
            shell.kernel = SimpleNamespace(
                do_complete=lambda code, cursor: {"matches": ["local"], "cursor_start": 0, "cursor_end": cursor},
                do_inspect=lambda code, cursor, detail=0, omit=(): {"found": True, "data": {"text/plain": "local"}},
            )
        made.append(World(shell))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def terminal(make_world: Callable[..., World]) -> World:
    return make_world(kernel=False)
