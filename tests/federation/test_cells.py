"""CellClient against scripted agents: what reaches which cell, and what happens when a member goes away."""

from __future__ import annotations

import collections
import json
import threading
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from fednb.errors import DataError, LinkError, LinkTimeout, PeerLost, UnexpectedMessage
from fednb.federation import messages as m
from fednb.federation import outbox
from fednb.federation.arrow import to_arrow
from fednb.federation.cells import CellClient, captured_value
from fednb.wire.endpoint import Conversation, Endpoint
from fednb.wire.loopback import Network

WAIT = 20.0


class Agent:
    """Answers cells by their text; records what it was asked."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.asked: list[object] = []
        self.interrupted = threading.Event()
        self.restarted = True
        self.conversations = 0
        endpoint.listen("cells", self.serve)

    def serve(self, talk: Conversation) -> None:
        self.conversations += 1
        while True:
            got = talk.recv(m.Execute, m.Interrupt, m.Complete, m.Inspect, m.Restart)
            self.asked.append(got)
            if isinstance(got, m.Execute):
                self.execute(talk, got)
            elif isinstance(got, m.Interrupt):
                self.interrupted.set()
                talk.send(m.CellDone(got.cell, "died" if got.kill else "interrupted"))
            elif isinstance(got, m.Complete):
                if got.code != "slow":
                    talk.send(m.Completions("some-other-question", ["wrong"], 0, 0))
                    talk.send(m.Completions(got.query, [f"{self.endpoint.me}_name"], 0, got.cursor))
            elif isinstance(got, m.Inspect):
                talk.send(m.Inspection(got.query, True, {"text/plain": "help"}))
            elif self.restarted:
                talk.send(m.Restarted(got.query))

    def execute(self, talk: Conversation, request: m.Execute) -> None:
        if request.code == "hang":
            talk.send(m.CellStarted(request.cell))
            return
        if request.code == "leave":
            talk.send(m.Stream(request.cell, "stdout", "bye"))
            talk.close("the agent was stopped")
            return
        if request.code == "flood":
            for _ in range(50):
                talk.send(m.Display(request.cell, {"text/plain": "x" * 100}))
                talk.send(m.Stream(request.cell, "stdout", "x"))
                talk.send(m.ClearOutput(request.cell))
                talk.send(m.CellError(request.cell, "E", "v", []))
                talk.send(m.CellStarted(request.cell))
                talk.send(m.Captured(request.cell, "x", m.PlainValue(1)))
                talk.send(m.Captured(request.cell, "not asked for", m.PlainValue(1)))
            talk.send(m.CellDone(request.cell, "ok"))
            return
        if request.code == "garbage":
            talk.send(m.RunStarted("x"))
            return
        talk.send(m.Stream("not-a-cell-of-ours", "stdout", "stray"))
        talk.send(m.Stream(request.cell, "stdout", f"{self.endpoint.me}: {request.code}"))
        for name in request.capture:
            talk.send(m.Captured(request.cell, name, m.PlainValue(42)))
        talk.send(m.CellDone(request.cell, "ok", seconds=0.5))


class World:
    def __init__(self) -> None:
        self.network = Network({"bank": "party", "agency": "party", "coordinator": "coordinator", "analyst": "analyst"})
        self.agents = {name: Agent(self.network.endpoint(name)) for name in ("bank", "agency")}
        self.analyst = self.network.endpoint("analyst#1")
        self.client = CellClient(self.analyst)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.client.close()
    made.analyst.close()
    for agent in made.agents.values():
        agent.endpoint.close()


def test_events_of_a_cell_come_labelled_by_member_and_end_with_one_done_each(world: World) -> None:
    run = world.client.execute(["bank", "agency"], "1 + 1", capture=["x"])
    events = list(run)
    for member in ("bank", "agency"):
        mine = [event for who, event in events if who == member]
        assert [type(event).__name__ for event in mine] == ["Stream", "Captured", "CellDone"]
        assert mine[0].text == f"{member}: 1 + 1"  # type: ignore[union-attr]
    assert set(run.done) == {"bank", "agency"}
    assert run.unfinished == ()


def test_all_cells_and_questions_share_one_conversation(world: World) -> None:
    for _ in range(3):
        list(world.client.execute(["bank"], "1"))
    world.client.complete("bank", "x", 1, timeout=WAIT)
    assert world.agents["bank"].conversations == 1


def test_unknown_member_is_refused_with_the_known_ones(world: World) -> None:
    with pytest.raises(LinkError, match=r"no member 'bnak'.*agency, bank, coordinator"):
        world.client.execute(["bank", "bnak"], "1")
    assert world.agents["bank"].asked == []


def test_a_cell_starts_nowhere_when_one_of_its_members_is_down(world: World) -> None:
    world.agents["agency"].endpoint.close()
    with pytest.raises(PeerLost, match="agency is down.*%fed status"):
        world.client.execute(["bank", "agency"], "1")
    assert world.agents["bank"].asked == []


def test_member_lost_in_mid_cell_is_named_and_the_others_finish(world: World) -> None:
    world.agents["agency"].execute = lambda talk, request: talk.close("the agent was stopped")  # type: ignore[method-assign]
    run = world.client.execute(["bank", "agency"], "1")
    list(run)
    assert run.done["bank"].status == "ok"
    assert run.done["agency"].status == "died"
    assert "the agent was stopped" in str(run.lost["agency"])


def test_next_cell_after_a_lost_conversation_opens_a_new_one(world: World) -> None:
    assert [type(e).__name__ for _, e in world.client.execute(["bank"], "leave")] == ["Stream", "CellDone"]
    run = world.client.execute(["bank"], "again")
    list(run)
    assert run.done["bank"].status == "ok"
    assert world.agents["bank"].conversations == 2


def test_a_member_that_sends_garbage_is_dropped_not_believed(world: World) -> None:
    run = world.client.execute(["bank"], "garbage")
    list(run)
    assert isinstance(run.lost["bank"], UnexpectedMessage)


def test_an_agent_that_keeps_to_no_allowance_is_held_to_it_here(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DISPLAYS", 10)
    monkeypatch.setattr(outbox, "DISPLAYS_PER_SECOND", 0)
    monkeypatch.setattr(outbox, "TEXT", 1000)
    monkeypatch.setattr(outbox, "TEXT_PER_SECOND", 0)
    events = [event for _, event in world.client.execute(["bank"], "flood", capture=["x"])]
    kinds = collections.Counter(type(event).__name__ for event in events)
    assert kinds["Display"] == 10
    assert kinds["Stream"] + kinds["ClearOutput"] < 20, "small prints count more than their one letter"
    assert kinds["CellError"] == kinds["CellStarted"] == kinds["Captured"] == kinds["CellDone"] == 1
    notes = [event.text for event in events if isinstance(event, m.Stream) and event.name == "stderr"]
    assert len(notes) == 2 and all("what follows is left out" in note for note in notes)


def test_interrupt_reaches_only_members_where_the_cell_still_runs(world: World) -> None:
    run = world.client.execute(["bank", "agency"], "hang")
    world.agents["bank"].execute = lambda talk, request: None  # type: ignore[method-assign]
    assert run.next(WAIT) is not None
    run.interrupt()
    list(run)
    assert {done.status for done in run.done.values()} == {"interrupted"}
    finished = world.client.execute(["agency"], "1")
    list(finished)
    world.agents["agency"].interrupted.clear()
    finished.interrupt()
    world.client.complete("agency", "x", 1, timeout=WAIT)  # whatever was sent before has arrived
    assert not world.agents["agency"].interrupted.is_set()


def test_wake_makes_a_waiting_next_return(world: World) -> None:
    run = world.client.execute(["bank"], "hang")
    assert run.next(WAIT) is not None
    threading.Thread(target=run.wake).start()
    assert run.next(WAIT) is None
    assert run.unfinished == ("bank",)
    run.interrupt()
    list(run)


def test_questions_get_their_own_answers(world: World) -> None:
    got = world.client.complete("bank", "ba", 2, timeout=WAIT)
    assert got is not None
    assert got.matches == ["bank_name"]
    seen = world.client.inspect("agency", "x", 1, timeout=WAIT)
    assert seen is not None
    assert seen.data == {"text/plain": "help"}


def test_typing_never_waits_for_a_slow_busy_or_missing_member(world: World) -> None:
    assert world.client.complete("bank", "slow", 4, timeout=0.05) is None
    run = world.client.execute(["bank"], "hang")
    assert run.next(WAIT) is not None
    before = len(world.agents["bank"].asked)
    assert world.client.complete("bank", "ba", 2, timeout=WAIT) is None  # at once: the kernel is busy with our cell
    assert len(world.agents["bank"].asked) == before
    run.interrupt()
    list(run)
    world.agents["bank"].endpoint.close()
    assert world.client.inspect("bank", "x", 1, timeout=WAIT) is None


def test_restart_is_confirmed_or_says_so(world: World) -> None:
    world.client.restart("bank", timeout=WAIT)
    assert isinstance(world.agents["bank"].asked[-1], m.Restart)
    world.agents["agency"].restarted = False
    with pytest.raises(LinkTimeout, match="agency did not confirm"):
        world.client.restart("agency", timeout=0.05)


def test_captured_values_are_ones_own_to_change() -> None:
    array = np.arange(3)
    array.flags.writeable = False
    got = captured_value(m.ArrayValue(array))
    got[0] = 7
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=pd.Index([5, 6], name="row"))
    assert captured_value(m.TableValue(to_arrow(frame, "it", keep_index=True))).equals(frame)
    series = captured_value(m.TableValue(to_arrow(frame[["a"]], "it"), series=True))
    assert isinstance(series, pd.Series)
    assert captured_value(m.PlainValue({"k": [1, None]})) == {"k": [1, None]}


def test_a_captured_table_of_nothing_but_rows_is_refused() -> None:
    import pyarrow as pa

    batch = pa.RecordBatch.from_arrays([pa.nulls(10**7)], ["x"])  # ten million rows in a few hundred bytes
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream = np.frombuffer(sink.getvalue(), np.uint8)
    assert len(stream) < 1000
    with pytest.raises(DataError, match="the captured table is not a sound table"):
        captured_value(m.TableValue(stream))


@pytest.mark.parametrize("values", ["numbers", "words"])
@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_a_captured_table_is_not_unpacked_from_a_compressed_stream(values: str, compression: str | None) -> None:
    import pyarrow as pa

    column = pa.array(np.zeros(1000)) if values == "numbers" else pa.array(["a", "b"] * 500).dictionary_encode()
    sink = pa.BufferOutputStream()
    table = pa.table({"x": column})
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    value = m.TableValue(np.frombuffer(sink.getvalue(), np.uint8))
    if compression is None:
        assert len(captured_value(value)) == 1000
    else:
        with pytest.raises(DataError, match="not a sound table"):
            captured_value(value)


def test_a_captured_table_with_hostile_metadata_is_refused() -> None:
    import pyarrow as pa

    hostile = json.dumps({"index_columns": [{"kind": "range"}], "column_indexes": [{}], "columns": [7]}).encode()
    table = pa.table({"x": [1.0]}).replace_schema_metadata({b"pandas": hostile})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="the captured table is not a sound table"):
        captured_value(m.TableValue(np.frombuffer(sink.getvalue(), np.uint8)))


def test_a_captured_table_that_is_not_arrow_is_refused() -> None:
    raw = to_arrow(pd.DataFrame({"name": ["x" * 50] * 20}), "it")
    with pytest.raises(DataError):
        captured_value(m.TableValue(np.frombuffer(b"not arrow at all", dtype=np.uint8)))
    with pytest.raises(DataError):
        captured_value(m.TableValue(raw[: len(raw) // 2]))
    offset = raw.tobytes().index(np.arange(0, 200, 50, dtype="<i8").tobytes())  # where each string begins
    lying = raw.copy()
    lying[offset + 8 : offset + 16] = np.frombuffer(np.int64(2**40).tobytes(), dtype=np.uint8)
    with pytest.raises(DataError):
        captured_value(m.TableValue(lying))
