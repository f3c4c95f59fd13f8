"""A workbench by its messages: what a page asks for, what the binning does, what is shown then."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fednb.errors import DataError, NotConnected, Refused
from fednb.federation import messages as m
from fednb.federation.cells import CellEvent
from fednb.federation.messages import Event, RunEvent
from fednb.federation.progress import follow
from fednb.federation.views import BinnedFeature, BinningView, TrainingView, bundle, decode, encode
from fednb.models.recut import Recutting
from fednb.notebook.palette import looks
from fednb.notebook.widgets import outputs, show
from fednb.notebook.widgets.workbench import (
    Recut,
    Undo,
    WorkbenchWidget,
    here,
    open_workbench,
    snapshot,
    there,
)

WAIT = 20.0
HANDLE = "0a1b2c3d"
STYLES = looks(["bank", "agency"])


def drawn(shown: BinningView) -> Any:
    return outputs(shown, STYLES)


def binned(name: str = "agency.delay", bins: int = 3, **more: Any) -> BinnedFeature:
    party, _, feature = name.partition(".")
    return BinnedFeature(
        **{
            "party": party,
            "feature": feature,
            "own": party == "bank",
            "holds": ["values"] * (bins - 1) + ["missing"],
            "cells": [2] * (bins - 1) + [1],
            "rows": [100] * bins,
            "positives": [10 * (b + 1) for b in range(bins)],
            "woe": [0.5 - b for b in range(bins)],
            "iv": [0.1] * bins,
            **more,
        }
    )


def view(*features: BinnedFeature, **more: Any) -> BinningView:
    found = features or (binned("bank.age", edges=[30.0]), binned(dropped="one bin only"))
    return BinningView(
        **{"features": [*found], "label": "bank.default", "rows": 300, "handle": HANDLE, "edit": True, **more}
    )


class Binning(Recutting):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.handle_ = HANDLE
        self.asked: list[Any] = []
        self.failure: Exception | None = None
        self.bins = 3

    def recut(self, edges: Any = None, *, cells: Any = None, frame: Any = None) -> Any:
        self.asked.append((edges, cells))
        if self.failure:
            raise self.failure
        events = [RunEvent("r1", 0, Event(member="agency", role="passive", at=1.0, phase="count", step=1, total=2))]
        with pytest.raises(Exception, match="went silent"):
            follow("r1", "New bins", events)
        self.bins = 2
        return self

    def undo(self) -> Any:
        self.asked.append("undo")
        return self

    def view(self, *, edit: bool) -> BinningView:
        feature = binned(bins=self.bins)
        return view(binned("bank.age"), feature, steps=len(self.asked), notes=["a note"] * len(self.asked))


@pytest.fixture
def binning(world: Any) -> Iterator[Binning]:
    made = Binning()
    world.shell.user_ns["binning"] = made
    yield made
    del world.shell.user_ns["binning"]


def asked(bench: WorkbenchWidget, *messages: Any) -> None:
    for message in messages:
        bench._on_message(None, message, [])
        assert bench.over.wait(WAIT)


def test_a_change_is_asked_of_the_binning_and_the_new_bins_are_shown(world: Any, binning: Binning) -> None:
    bench = open_workbench(view(), world.federation, STYLES, world.shell, None, drawn)
    told: list[str] = []
    bench.widget.observe(lambda change: told.append(change["new"]), "note")
    asked(bench, {"kind": "recut", "feature": "agency.delay", "cells": [3]})
    assert binning.asked == [(None, {"agency.delay": [3]})]
    assert [len(f["bins"]) for f in bench.widget.snapshot["features"]] == [3, 2]
    assert told[:2] == ["asking the members", "count 1 of 2"], "the run's progress is told here, and shown nowhere else"
    assert bench.widget.note == ("agency.delay: information value 0.3000 before, 0.2000 now, 2 bins; a note") and not (
        bench.widget.busy or bench.widget.wrong
    )
    asked(bench, {"kind": "recut", "feature": "bank.age", "edges": [25, 40.5]}, {"kind": "undo"})
    assert binning.asked[1:] == [({"bank.age": [25.0, 40.5]}, None), "undo"]


def test_the_picture_below_stays_and_follows(world: Any, binning: Binning) -> None:
    bench = open_workbench(view(), world.federation, STYLES, world.shell, None, drawn)
    before = world.screen()
    assert sum("application/vnd.jupyter.widget-view+json" in data for data in before.values()) == 1
    asked(bench, {"kind": "recut", "feature": "agency.delay", "cells": []})
    after = world.screen()
    assert set(after) == set(before), "nothing is added: each output is drawn over"
    changed = {kind for key in after if after[key] != before[key] for kind in after[key]}
    assert changed == {"image/png", "text/html", "text/plain"}


def test_what_a_page_may_not_ask_is_not_heard(world: Any, binning: Binning) -> None:
    bench = open_workbench(view(), world.federation, STYLES, world.shell, None, drawn)
    for message in (
        "undo",
        {"kind": "drop"},
        {"kind": "recut", "feature": 3, "cells": [1]},
        {"kind": "recut", "feature": "agency.delay", "cells": [0]},
        {"kind": "recut", "feature": "agency.delay", "cells": ["1"]},
        {"kind": "recut", "feature": "agency.delay", "cells": [1], "frame": "f"},
        {"kind": "undo", "code": "1"},
    ):
        asked(bench, message)
    assert binning.asked == [] and bench.widget.note == ""


def test_a_refusal_is_shown_and_the_bins_stay(world: Any, binning: Binning) -> None:
    bench = open_workbench(view(), world.federation, STYLES, world.shell, None, drawn)
    binning.failure = Refused("bank does not cut 'age' there", member="bank", rule="protocols.rows_apart")
    before = bench.widget.snapshot
    asked(bench, {"kind": "recut", "feature": "bank.age", "edges": [30]})
    assert bench.widget.note.startswith("bank does not cut 'age' there") and bench.widget.wrong
    assert bench.widget.snapshot == before
    binning.failure = None
    asked(bench, {"kind": "undo"})
    assert not bench.widget.wrong and bench.widget.note == "the last recount is taken back"


def test_one_change_at_a_time(world: Any) -> None:
    go, began = threading.Event(), threading.Event()
    seen: list[Any] = []

    def act(change: Any, tell: Any) -> BinningView:
        seen.append(change)
        began.set()
        assert go.wait(WAIT)
        return view()

    bench = WorkbenchWidget(view(), STYLES, world.shell, act, drawn)
    bench._on_message(None, {"kind": "undo"}, [])
    assert began.wait(WAIT) and bench.widget.busy
    bench._on_message(None, {"kind": "undo"}, [])
    go.set()
    assert bench.over.wait(WAIT)
    assert seen == [Undo()]


def test_a_binning_of_the_coordinators_kernel_is_changed_by_a_cell_there(world: Any) -> None:
    sent: list[str] = []

    def cell(code: str) -> Iterator[CellEvent]:
        sent.append(code)
        yield m.CellStarted("c")
        yield m.Display("c", bundle(TrainingView(run="r1", title="New bins")))
        yield m.Display("c", bundle(view(steps=1)))
        yield m.CellDone("c", "ok", 0.1, 1, "")

    class Federation:
        def watch(self, run: str) -> Iterator[RunEvent]:
            yield RunEvent(run, 0, Event(member="agency", role="passive", at=1.0, phase="count", step=1, total=2))
            told.set()

    told = threading.Event()
    heard: list[str] = []
    act = there(HANDLE, Federation(), cell)  # type: ignore[arg-type]
    assert act(Recut("agency.delay", cells=[2]), heard.append).steps == 1
    assert told.wait(WAIT) and heard == ["count 1 of 2"]
    binning = Binning()
    scope = {"my_binning": binning}
    binning.workbench = lambda: "shown"  # type: ignore[attr-defined]
    assert eval(sent[0], scope) == "shown" and binning.asked == [(None, {"agency.delay": [2]})]
    act(Undo(), heard.append)
    assert eval(sent[1], scope) == "shown" and binning.asked[-1] == "undo"


def test_a_cell_that_fails_there_is_explained_without_control_characters() -> None:
    def fails(code: str) -> Iterator[CellEvent]:
        yield m.CellError("c", "DataError", "agency: no\x1b[31m cells", [])
        yield m.CellDone("c", "error", 0.1, 1, "")

    def silent(code: str) -> Iterator[CellEvent]:
        yield m.CellDone("c", "ok", 0.1, 1, "")

    with pytest.raises(Exception, match=r"^agency: no\[31m cells$"):
        there(HANDLE, None, fails)(Undo(), print)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="showed no bins"):
        there(HANDLE, None, silent)(Undo(), print)  # type: ignore[arg-type]


def test_a_handle_is_no_code() -> None:
    with pytest.raises(ValueError, match="not a view"):
        decode(encode(view()) | {"handle": "');evil("})
    with pytest.raises(ValueError, match="differ in length"):
        decode(encode(view(binned(rows=[1, 2]))))


def test_without_a_federation_nothing_can_be_changed(world: Any) -> None:
    with pytest.raises(NotConnected, match="connected to their federation"):
        open_workbench(view(), None, STYLES, world.shell, None, drawn)
    with pytest.raises(DataError, match="in no variable"):
        here(world.shell, HANDLE)(Undo(), print)


def test_the_page_is_told_text_and_numbers_only() -> None:
    shown = snapshot(view(), STYLES)
    assert json.loads(json.dumps(shown)) == shown
    age, delay = shown["features"]
    assert age["own"] and age["edges"] == [30.0] and not delay["own"] and delay["dropped"] == "one bin only"
    assert [bin["ordinary"] for bin in delay["bins"]] == [True, True, False]


def test_bins_are_a_picture_where_they_are_only_looked_at(world: Any, terminal: Any, capsys: Any) -> None:
    show(view(edit=False), world.federation, world.shell)
    assert [set(output["data"]) for output in world.published] == [
        {"image/png", "text/plain"},
        {"text/html", "text/plain"},
    ]
    show(view(), None, terminal.shell)
    assert "bank.age: information value 0.3000, 3 bins" in capsys.readouterr().out
