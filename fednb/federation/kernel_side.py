"""What a kernel behind an agent finds preloaded: `fed`, and whatever else the agent says.

An IPython extension of the kernel's own process. It holds no keys and no policy: everything it does is a request
to the agent over a pipe, and the agent decides.
"""

from __future__ import annotations

import importlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fednb import errors
from fednb.errors import DataError, FednbError, LinkError, NotConnected
from fednb.federation import messages as m
from fednb.federation import text_progress
from fednb.federation.arrow import from_arrow, to_arrow
from fednb.federation.card import PartyCard
from fednb.federation.fitted import table_of
from fednb.federation.guarded_frame import GuardedFrame
from fednb.policy import plan as p
from fednb.policy.answer import Answer
from fednb.wire.endpoint import Conversation, Endpoint, Presence
from fednb.wire.message import Message

if TYPE_CHECKING:
    import pandas as pd
    from IPython.core.interactiveshell import InteractiveShell

PIPE = "FEDNB_PIPE"  # path of the agent's pipe; in a sandbox "fd:N", its descriptor
MEMBER = "FEDNB_MEMBER"
KIND = "FEDNB_KIND"  # "party" or "coordinator"
PRELOAD = "FEDNB_PRELOAD"  # modules, comma-separated, whose public names the kernel starts with

_ATTRS = "fednb"  # in DataFrame.attrs: which columns of a loaded table are its id and label
_PLAIN = (bool, int, float, str, bytes)

M = TypeVar("M", bound=Message)


class PartyFed:
    """`fed` in a party's cells: this party's tables, and what may be done with them.

    >>> loans = fed.load("loans")
    >>> fed.save("clean", loans.fillna(loans.median(numeric_only=True)))
    """

    def __init__(self, endpoint: Endpoint, member: str) -> None:
        self._endpoint = endpoint
        self._member = member
        self._talk: Conversation | None = None
        self._loaded: dict[str, tuple[list[str], str | None]] = {}

    def __repr__(self) -> str:
        return f"fed at {self._member}: fed.tables(), fed.load(name), fed.save(name, table), fed.lock()"

    def tables(self) -> pd.DataFrame:
        """One row a table of this party: party, table, rows, columns, id, label."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "party": info.member,
                    "table": info.name,
                    "rows": info.rows,
                    "columns": len(info.columns),
                    "id": ", ".join(c.name for c in info.columns if c.role == "id"),
                    "label": ", ".join(c.name for c in info.columns if c.role == "label"),
                }
                for info in self._ask(m.Describe(), m.Tables).tables
            ],
            columns=["party", "table", "rows", "columns", "id", "label"],
        )

    def load(self, name: str) -> pd.DataFrame | GuardedFrame:
        """A table of this party. Id columns are exact text. Raises DataError for an unknown table.

        A guarded party gives a handle, which looks much like a DataFrame and holds no data.
        """
        answer = self._checked(self._send(m.LoadTable(name)).recv(m.TableData, m.TableSchema, m.Failed))
        if isinstance(answer, m.TableSchema):
            return GuardedFrame.of(_Gate(self), answer.schema)
        frame = from_arrow(answer.arrow, f"table {name!r}")
        self._loaded[name] = (answer.id, answer.label)
        frame.attrs[_ATTRS] = {"id": answer.id, "label": answer.label}
        return frame

    def save(
        self,
        name: str,
        table: pd.DataFrame | GuardedFrame,
        id: str | Sequence[str] | None = None,
        label: str | None = None,
    ) -> None:
        """Keep a derived table at this party, for alignments and training. It does not leave.

        `id` and `label` default to those of the table that it was made from.
        """
        if isinstance(table, GuardedFrame):
            self._ask(m.KeepTable(table.kept(name, id, label)), m.Ok)
            return
        import pandas as pd

        if not isinstance(table, pd.DataFrame):
            raise DataError(f"fed.save takes a DataFrame, not a {type(table).__name__}.")
        named = [level for level in table.index.names if level is not None and level not in table.columns]
        if named:
            table = table.reset_index(named)
        ids, label = self._roles(table, id, label)
        self._ask(m.SaveTable(name, to_arrow(table, f"table {name!r}"), ids, label), m.Ok)

    def lock(self) -> None:
        """From now on this party takes part in protocols only: no more cells, until its owner starts it again."""
        self._ask(m.Lock(), m.Ok)
        print(f"{self._member} is protocol-only from here on: this is the last cell that it runs.")

    def coefficients(self, run: str) -> pd.Series:
        """This party's own coefficients of a model, by column. `run` is the id of the run that trained it."""
        import pandas as pd

        values = self._ask(m.ReadModel(run), m.ModelPart).values
        if "coef" not in values:
            raise DataError(f"run {run} made a scorecard; fed.scorecard({run!r}) shows this party's points.")
        return pd.Series(np.asarray(values["coef"], dtype=np.float64), index=list(values["columns"]), name=run)

    def standard_errors(self, run: str) -> pd.DataFrame:
        """This party's own coefficients and their standard errors, by column; `run` is the id of the run of these.

        In the unit that the model was trained in: of a linear regression, standard deviations of the label.
        """
        import pandas as pd

        values = self._ask(m.ReadModel(run), m.ModelPart).values
        if "std_err" not in values:
            raise DataError(f"run {run} made no standard errors.")
        found = {name: np.asarray(values[name], dtype=np.float64) for name in ("coef", "std_err")}
        return pd.DataFrame(found, index=list(values["columns"]))

    def preparation(self, run: str) -> pd.DataFrame:
        """What was fitted on this party's own columns, a line a figure: step, rule, column, figure and value.

        `run` is a transformer's `run_`. Of categories, the figure is the new column and the value what it stands for.
        """
        values = self._ask(m.ReadModel(run), m.ModelPart).values
        if "prepared" not in values:
            raise DataError(f"run {run} fitted no preparation.")
        return table_of(values["prepared"])

    def scorecard(self, run: str) -> PartyCard:
        """This party's own part of a scorecard: its points as a table, as JSON, and as a Python function."""
        values = self._ask(m.ReadModel(run), m.ModelPart).values
        if "card" not in values:
            raise DataError(f"run {run} made no scorecard.")
        return PartyCard(self._member, values)

    def _roles(
        self, table: pd.DataFrame, id: str | Sequence[str] | None, label: str | None
    ) -> tuple[list[str], str | None]:
        columns = set(table.columns)
        known = table.attrs.get(_ATTRS)
        candidates = [(list(known["id"]), known["label"])] if known else []
        candidates += list(reversed(self._loaded.values()))  # pandas drops attrs in merges: the last load that fits
        source = next(((ids, own) for ids, own in candidates if ids and columns.issuperset(ids)), None)
        if id is not None:
            ids = [id] if isinstance(id, str) else list(id)
        elif source is not None:
            ids = source[0]
        else:
            raise DataError(
                "which column identifies a row? Say so: fed.save(name, table, id=COLUMN) (or a list of columns)."
            )
        if label is None and source is not None and source[1] in columns:
            label = source[1]
        return ids, label

    def _ask(self, request: Message, kind: type[M]) -> M:
        return self._checked(self._send(request).recv(kind, m.Failed))

    def _send(self, request: Message) -> Conversation:
        if self._talk is None:
            self._talk = self._endpoint.open(self._member, "local")
        try:
            self._talk.send(request)
        except LinkError:
            self._talk = None  # the agent ended it; the next request opens another
            raise
        return self._talk

    @staticmethod
    def _checked(answer: M | m.Failed) -> M:
        if isinstance(answer, m.Failed):
            known = {"DataError": errors.DataError, "Refused": errors.Refused, "ConfigError": errors.ConfigError}
            raise known.get(answer.error_type, FednbError)(answer.error)
        return answer


class _Gate:
    """Where a guarded party's handles ask."""

    def __init__(self, fed: PartyFed) -> None:
        self.member = fed._member
        self._fed = fed

    def ask(self, question: p.Aggregate | p.Count | p.Histogram | p.Correlate | p.Regress) -> Answer:
        return self._fed._ask(m.AskGate(question), m.GateAnswer).answer


class AgentsEndpoint:
    """The pipe of a coordinator's kernel as the endpoint of a Federation: it knows whom the agent knows."""

    def __init__(self, pipe: Endpoint, member: str) -> None:
        self.me = pipe.me
        self._pipe = pipe
        self._member = member

    def open(self, peer: str, context: str) -> Conversation:
        return self._pipe.open(peer, context)

    def listen(self, prefix: str, handler: Callable[[Conversation], None]) -> None:
        self._pipe.listen(prefix, handler)

    def members(self) -> Mapping[str, Presence]:
        talk = self._pipe.open(self._member, f"members/{secrets.token_hex(8)}")
        try:
            talk.send(m.ListMembers())
            return {seen.name: seen for seen in talk.recv(m.Members, timeout=30).members}
        finally:
            talk.close()

    def watch(self, callback: Callable[[Presence], None]) -> None:
        self._pipe.watch(callback)

    def close(self) -> None:
        """Leaves the pipe open: the kernel lives on, and `-o` needs it."""


_endpoint: Endpoint | None = None


def endpoint() -> Endpoint:
    """This kernel's end of its agent's pipe. Raises NotConnected outside such a kernel."""
    global _endpoint
    if _endpoint is None:
        path = os.environ.get(PIPE)
        if not path:
            raise NotConnected("this is not a kernel of a fednb member: there is no agent to ask.")
        from fednb.wire.pipe import PipeEndpoint

        number = path.removeprefix("fd:")
        pipe = Path(path) if number == path else socket.socket(fileno=int(number))
        _endpoint = PipeEndpoint(pipe, "kernel", os.environ[MEMBER])
    return _endpoint


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython when the kernel starts."""
    from IPython.core import page

    text_progress.install()
    member = os.environ[MEMBER]
    names: dict[str, Any] = {}
    for module in filter(None, os.environ.get(PRELOAD, "").split(",")):
        loaded = importlib.import_module(module)
        names |= {name: getattr(loaded, name) for name in loaded.__all__}
    if os.environ.get(KIND) == "coordinator":
        from fednb.federation.client import Federation

        names["fed"] = Federation(AgentsEndpoint(endpoint(), member), member)
    else:
        import pandas  # noqa: F401  (now, while nobody waits)

        names["fed"] = PartyFed(endpoint(), member)
    # `name?` pages through a side channel that does not travel: show it as an output instead
    shell.set_hook("show_in_pager", page.as_hook(page.display_page))  # type: ignore[no-untyped-call]
    shell.push(names, interactive=False)  # type: ignore[no-untyped-call]


def put(cell: str, names: Iterable[str]) -> None:
    """Hand values of the analyst's names to the agent, to go out with this cell's answers."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    space: Mapping[str, Any] = shell.user_ns if shell is not None else {}
    talk = endpoint().open(os.environ[MEMBER], "capture")
    try:
        for name in names:
            if name not in space:
                raise NameError(f"-o {name}: the cell leaves no name {name!r}")
            talk.send(m.Put(cell, name, portable(space[name], name)))
            talk.recv(m.Ok)
    finally:
        talk.close()


def portable(value: Any, name: str) -> m.PlainValue | m.ArrayValue | m.TableValue:
    """The typed form of a value that may travel. Raises TypeError for what may not."""
    import pandas as pd

    if isinstance(value, pd.Series):
        return m.TableValue(to_arrow(value.to_frame(), f"-o {name}", keep_index=True), series=True)
    if isinstance(value, pd.DataFrame):
        return m.TableValue(to_arrow(value, f"-o {name}", keep_index=True))
    if isinstance(value, np.ndarray):
        return m.ArrayValue(value)
    return m.PlainValue(_plain(value, name))


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, _PLAIN):
        return value
    if depth < 16 and isinstance(value, list | tuple):
        return [_plain(item, name, depth + 1) for item in value]
    if depth < 16 and isinstance(value, Mapping):
        return {str(key): _plain(item, name, depth + 1) for key, item in value.items()}
    raise TypeError(
        f"-o {name}: a {type(value).__name__} cannot come back; numbers, text, lists, dicts, arrays and tables can."
    )
