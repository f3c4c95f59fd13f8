"""A run on its screen: nothing for the short, a widget while it goes on, a picture when it has ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fednb.errors import LinkError, NotConnected
from fednb.federation.messages import Event, RunEnded, RunEvent
from fednb.federation.progress import RunProgress
from fednb.federation.views import TrainingView
from fednb.notebook.comms import hear_while_busy
from fednb.notebook.palette import looks
from fednb.notebook.widgets import show
from fednb.notebook.widgets.live import CANCELLING, LiveRun, NotebookScreen
from fednb.notebook.widgets.training import describe, logarithmic, picture, snapshot, thinned

WAIT = 20.0
STYLES = looks(["bank", "agency"])
VIEW = TrainingView(run="r1", title="a fit")


class Screen:
    """Remembers what it was told to draw; `drawn` is set by the first drawing."""

    def __init__(self) -> None:
        self.drawn = threading.Event()
        self.silences: list[float] = []
        self.left: list[RunProgress] = []
        self.repeated = 0

    def prepare(self) -> None:
        return

    def draw(self, progress: RunProgress, silent: float) -> None:
        self.silences.append(silent)
        self.drawn.set()

    def end(self, progress: RunProgress) -> None:
        self.left.append(progress)

    def repeat(self) -> None:
        self.repeated += 1


def events(screen: Screen, first: Iterator[RunEvent], last: RunEnded | Exception) -> Iterator[RunEvent | RunEnded]:
    """A run that goes on until it has been drawn."""
    yield from first
    assert screen.drawn.wait(WAIT)
    if isinstance(last, Exception):
        raise last
    yield last


def followed(world: Any, first: Iterator[RunEvent], last: RunEnded | Exception) -> Screen:
    screen = Screen()
    run = LiveRun(VIEW, events(screen, first, last), screen, hidden=0.05)
    run.start(world.shell)
    world.shell.events.trigger("post_run_cell", None)  # the cell waits for the picture
    assert run.over.is_set()
    return screen


def test_a_run_is_drawn_and_its_end_stands_before_the_cell_ends(world: Any, training: Any, ended: Any) -> None:
    screen = followed(world, training(4), ended())
    assert [progress.state for progress in screen.left] == ["ok"]
    assert screen.repeated == 0
    assert not [f for f in world.shell.events.callbacks["post_run_cell"] if "at_cell_end" in f.__name__]


def test_a_run_that_is_lost_says_so(world: Any, training: Any) -> None:
    screen = followed(world, training(4), LinkError("coordinator is gone"))
    assert "coordinator is gone" in describe(screen.left[0])
    assert "no news after" in describe(screen.left[0])


def test_a_short_run_leaves_nothing(world: Any, training: Any) -> None:
    screen = Screen()
    short = RunEnded("r1", "ok", {}, "", "", "", 0.2)
    run = LiveRun(VIEW, iter([*training(2), short]), screen)
    run.start(world.shell)
    assert run.over.wait(WAIT)
    assert not screen.drawn.is_set() and screen.left == []


def test_a_run_that_outlives_its_cell_repeats_its_picture_when_a_later_one_ends(
    world: Any, training: Any, ended: Any
) -> None:
    screen, go = Screen(), threading.Event()

    def slow() -> Iterator[RunEvent | RunEnded]:
        yield from training(2)
        assert go.wait(WAIT)
        yield ended()

    run = LiveRun(VIEW, slow(), screen, hidden=0.05)
    background = threading.Thread(target=run.start, args=(world.shell,))  # as a cell with --noblock does
    background.start()
    background.join(WAIT)
    world.shell.events.trigger("post_run_cell", None)
    assert screen.repeated == 0 and not run.over.is_set(), "nobody waits for a run in the background"
    go.set()
    assert run.over.wait(WAIT)
    world.shell.events.trigger("post_run_cell", None)
    world.shell.events.trigger("post_run_cell", None)
    assert screen.repeated == 1


@pytest.fixture
def notebook(world: Any) -> Callable[..., NotebookScreen]:
    return lambda cancel=lambda: None: NotebookScreen(world.shell, STYLES, cancel)


def test_the_widget_gives_way_to_a_picture_in_the_same_place(
    world: Any, notebook: Callable[..., NotebookScreen], progress: RunProgress, ended: Any
) -> None:
    screen = notebook()
    screen.draw(progress, 0.0)
    screen.draw(progress, 6.0)
    progress.end(ended())
    screen.end(progress)
    screen.repeat()
    first, *later = world.published
    assert "application/vnd.jupyter.widget-view+json" in first["data"] and "text/plain" in first["data"]
    assert [(set(output["data"]), output["update"]) for output in later] == [({"image/png", "text/plain"}, True)] * 2
    assert len({output["transient"]["display_id"] for output in world.published}) == 1


def test_the_button_cancels_once_and_nothing_else_that_a_page_sends(
    notebook: Callable[..., NotebookScreen], progress: RunProgress
) -> None:
    asked: list[str] = []
    done, go = threading.Event(), threading.Event()

    def cancel() -> None:
        asked.append("cancel")
        done.set()
        assert go.wait(WAIT)
        raise LinkError("coordinator does not answer")

    screen = notebook(cancel)
    screen.draw(progress, 0.0)
    widget = screen._widget
    noted = threading.Event()
    widget.observe(lambda change: noted.set() if change["new"] != CANCELLING else None, "note")
    for content in ({"kind": "run"}, "cancel", {"kind": "cancel", "run": "other"}, {"kind": "cancel"}):
        screen._on_message(widget, content, [])
    assert done.wait(WAIT)
    screen._on_message(widget, {"kind": "cancel"}, [])  # a second press while the first is on its way
    go.set()
    assert noted.wait(WAIT)
    assert asked == ["cancel"]
    assert widget.note == "could not cancel: coordinator does not answer"


def test_the_widgets_messages_take_the_front_ends_own_way() -> None:
    """Else the button would wait for the busy cell, and be heard when there is nothing left to cancel."""

    class Comm:
        def _reply_subshell_for(self, data: object, sender: object) -> None:
            return None  # the main shell

    comm = Comm()
    hear_while_busy(comm)
    assert comm._reply_subshell_for({}, "subshell-1") == "subshell-1"  # type: ignore[func-returns-value]


def test_a_run_can_be_shown_only_with_its_federation(world: Any) -> None:
    with pytest.raises(NotConnected):
        show(VIEW, None, world.shell)
    with pytest.raises(ValueError, match="not a view"):
        show({"view": "training", "run": "r1", "script": "alert(1)"}, world.federation, world.shell)


def test_a_terminal_gets_the_words(terminal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    show({"view": "scores", "member": "bank", "rows": 7}, None, terminal.shell)
    assert capsys.readouterr().out == "Scores of 7 rows at bank\n"


def test_the_widget_is_told_who_waits_for_whom_and_what_it_cost(progress: RunProgress) -> None:
    shown = snapshot(progress, STYLES, silent=7.0)
    assert json.loads(json.dumps(shown)) == shown
    assert [(m["name"], m["doing"]) for m in shown["members"]] == [
        ("bank", "train"),
        ("agency", "waits for Residuals from bank"),
        ("coordinator", "train"),
    ]
    assert shown["silent"] == "no news for 7.0 s" and shown["log"] and shown["done"] == 0.6
    assert "train 12 of 20" in shown["figures"] and "1.8 MB sent" in shown["figures"]
    assert "24,240 operations on ciphertexts" in shown["figures"]


def test_a_loss_on_other_rows_is_drawn_beside_and_levels_are_timed() -> None:
    progress = RunProgress("r1")
    for step in range(1, 4):
        levels = {"level_01_seconds": 0.5, "level_02_seconds": 0.25, "round_seconds": 0.75}
        metrics = {"loss": 1 / step, "validation_loss": 2 / step, **levels}
        event = Event(member="bank", role="active", at=1e9 + step, phase="train", step=step, total=5, metrics=metrics)
        progress.add(RunEvent("r1", step, event))
    shown = snapshot(progress, STYLES)
    assert shown["metric"] == "loss" and shown["curves"] == [[[1.0, 1.0], [2.0, 0.5], [3.0, 1 / 3]]]
    assert shown["dashed"] == [[[1.0, 2.0], [2.0, 1.0], [3.0, 2 / 3]]]
    assert {"loss 0.3333", "validation loss 0.6667", "tree 3, levels 0.5 s · 0.25 s"} <= set(shown["figures"])
    begun = {"level_01_seconds": 0.4}
    event = Event(member="bank", role="active", at=1e9 + 4, phase="train", step=3, total=5, metrics=begun)
    progress.add(RunEvent("r1", 4, event))
    assert "tree 4, levels 0.4 s" in snapshot(progress, STYLES)["figures"]
    assert picture(progress, STYLES).png().startswith(b"\x89PNG")


def test_a_failed_run_is_drawn_with_its_reason(progress: RunProgress, ended: Any) -> None:
    progress.end(ended("failed", "a column has\na missing value", "agency"))
    assert "at agency: a column has" in describe(progress)
    assert picture(progress, STYLES).png().startswith(b"\x89PNG")


def test_a_run_without_any_event_can_be_drawn() -> None:
    empty = RunProgress("r1")
    assert snapshot(empty, STYLES)["curves"] == []
    assert picture(empty, STYLES).png().startswith(b"\x89PNG")


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    points = thinned([(step, float(step)) for step in range(1_999)], 300)
    assert len(points) <= 301 and points[0] == [0, 0] and points[-1] == [1998, 1998]
    assert thinned([(1, float("nan")), (2, 1.0)]) == [[2, 1.0]]


def test_a_scale_is_logarithmic_where_it_can_be() -> None:
    assert logarithmic("gradient_norm", [1.0, 0.9])
    assert not logarithmic("gradient_norm", [1.0, 0.0])
    assert not logarithmic("loss", [1.0, 0.5]) and logarithmic("loss", [100.0, 0.5])
