"""A run's events, folded into one summary and shown on a terminal, in a kernel, or not at all."""

from __future__ import annotations

import io
import math
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from fednb.errors import LinkError
from fednb.federation import progress
from fednb.federation.messages import Event, MemberResult, RunEnded, RunEvent
from fednb.federation.progress import Bar, RunProgress, follow, format_bytes, format_seconds
from fednb.federation.views import MIME, TrainingView, decode


def event(seq: int, member: str = "bank", *, at: float = 0.0, phase: str = "train", **more: Any) -> RunEvent:
    return RunEvent(run="r1", seq=seq, event=Event(member=member, role="active", at=at, phase=phase, **more))


def training(steps: int = 4, status: Any = "ok", error: str = "") -> Iterator[RunEvent | RunEnded]:
    seq = 0
    for step in range(1, steps + 1):
        for member in ("bank", "agency"):
            sent = {"coordinator": 1000 * step}
            metrics = {"loss": 1 / step} if member == "bank" else {}
            yield event(seq, member, at=10.0 + 2 * step, step=step, total=steps, metrics=metrics, bytes_out=sent,
                        operations={"encrypt": 5 * step})  # fmt: skip
            seq += 1
    yield RunEnded(run="r1", status=status, error=error, member="agency" if error else "", seconds=9.0)


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def folded(messages: Iterator[RunEvent | RunEnded]) -> RunProgress:
    state = RunProgress("r1", "a fit")
    for message in messages:
        state.end(message) if isinstance(message, RunEnded) else state.add(message)
    return state


def test_events_of_all_members_add_up() -> None:
    state = folded(training())
    assert (state.state, state.phase, state.step, state.total, state.seconds) == ("ok", "train", 4, 4, 9.0)
    assert state.bytes == 8000
    assert state.operations == {"encrypt": 40}
    assert state.curves["loss"]["bank"] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert state.latest("loss") == 0.25


def test_an_event_seen_twice_counts_once() -> None:
    events = [e for e in training() if isinstance(e, RunEvent)]
    state = folded(iter(events + events))
    assert len(state.curves["loss"]["bank"]) == 4
    assert state.next_seq == 8


def test_time_to_go_comes_from_one_members_own_clock() -> None:
    state = RunProgress("r1")
    # The agency's clock is an hour ahead; mixing the two would give nonsense.
    steps = [("bank", 0.0, 1), ("agency", 3600.0, 1), ("bank", 3.0, 2), ("agency", 3603.0, 2)]
    for seq, (member, at, step) in enumerate(steps):
        state.add(event(seq, member, at=at, step=step, total=10))
    assert state.eta == pytest.approx(24.0)
    assert state.seconds == pytest.approx(3.0)


def test_a_members_own_estimate_is_preferred() -> None:
    state = RunProgress("r1")
    state.add(event(0, step=1, total=10, metrics={"eta_seconds": 77.0}))
    assert state.eta == 77.0
    assert state.curve() is None


def test_a_wait_names_who_waits_for_what_and_ends_with_the_next_step() -> None:
    state = RunProgress("r1")
    state.add(event(0, "bank", step=2, total=5, bytes_out={"agency": 7}))
    state.add(event(1, "bank", phase="wait", waiting_for="Residuals from agency"))
    assert state.members["bank"].waiting_for == "Residuals from agency"
    assert (state.phase, state.step, state.bytes) == ("train", 2, 7)
    state.add(event(2, "bank", step=3, total=5))
    assert state.members["bank"].waiting_for == ""


def test_a_new_phase_starts_its_own_count_and_a_straggler_does_not_bring_the_old_one_back() -> None:
    state = RunProgress("r1")
    state.add(event(0, "bank", phase="prepare", step=1, total=1))
    state.add(event(1, "bank", phase="train", step=3, total=9))
    state.add(event(2, "agency", phase="prepare", step=1, total=1))
    assert (state.phase, state.step, state.total) == ("train", 3, 9)


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    state = RunProgress("r1")
    for seq in range(10 * progress.POINTS):
        state.add(event(seq, step=seq, metrics={"loss": float(seq)}))
    series = state.curves["loss"]["bank"]
    assert len(series) <= progress.POINTS
    assert series[0] == (0, 0.0) and series[-1][0] == 10 * progress.POINTS - 1


def test_a_failure_is_told_with_the_member_that_failed_first() -> None:
    state = folded(training(2, "failed", "income has NaN in 3 rows"))
    assert state.reason == "at agency: income has NaN in 3 rows"


def test_results_at_the_end_replace_the_running_figures() -> None:
    state = RunProgress("r1")
    state.add(event(0, bytes_out={"agency": 5}))
    result = MemberResult(role="active", bytes_out={"agency": 50}, operations={"decrypt": 2})
    state.end(RunEnded(run="r1", status="ok", results={"bank": result}))
    assert (state.bytes, state.operations) == (50, {"decrypt": 2})


def test_a_terminal_gets_one_line_that_is_drawn_over_and_a_last_one_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert follow("r1", "a fit", training()).status == "ok"
    text = terminal.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    last = text.rsplit("\r\x1b[K", 1)[1]
    assert last == "a fit · done in 9.0 s · loss 0.25 · ↑8 kB\n"


def test_the_bar_is_drawn_at_most_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = iter(x / 100 for x in range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    follow("r1", "a fit", training(100))  # 200 events, 10 ms apart
    assert terminal.getvalue().count("\r") <= 22


def test_what_a_remote_member_says_cannot_drive_the_terminal() -> None:
    state = RunProgress("r1", "a fit")
    state.add(event(0, step=1, total=2, metrics={"\x1b]0;x": 1.0}, waiting_for="\x1b[2J\nowned"))
    line = Bar(Terminal()).line(state)
    assert "\x1b" not in line and "\n" not in line
    assert "bank waits for ?[2J?owned" in line


def test_a_terminal_without_unicode_gets_ascii() -> None:
    terminal = Terminal()
    terminal.encoding = "ascii"  # type: ignore[assignment]
    state = RunProgress("r1", "a fit")
    state.add(event(0, step=1, total=2))
    assert Bar(terminal).line(state).isascii()


def test_without_a_terminal_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    follow("r1", "a fit", training())
    assert capsys.readouterr() == ("", "")


def test_inside_a_kernel_one_typed_view_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    federation = object()
    display = types.SimpleNamespace(
        display=lambda it: shown.append({**it._repr_mimebundle_(), "federation": it.federation})
    )
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    follow("r1", "a fit", training(), federation)
    assert [decode(data[MIME]) for data in shown] == [TrainingView(run="r1", title="a fit")]
    assert shown[0]["text/plain"] == "a fit [r1]"
    assert shown[0]["federation"] is federation, "the notebook must know where the run can be watched"


def test_events_that_stop_without_an_end_are_an_error() -> None:
    with pytest.raises(LinkError, match="run r1 went silent"):
        follow("r1", "a fit", (e for e in training() if isinstance(e, RunEvent)))


def test_an_interrupt_leaves_the_terminal_on_a_fresh_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def events() -> Iterator[RunEvent | RunEnded]:
        yield event(0, step=1, total=4)
        raise KeyboardInterrupt

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt):
        follow("r1", "a fit", events())
    assert terminal.getvalue().endswith("1/4\n")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1300, "1.3 kB"), (24e6, "24 MB"), (999.6e6, "1 GB"), (5e12, "5000 GB")],
)
def test_bytes_read_well(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (9.96, "10 s"), (59.7, "1:00"), (185, "3:05"), (3725, "1:02:05")],
)
def test_seconds_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("step", "total"), [(-(10**15), 1), (10**15, 1), (5, -1), (0, 10**15)])
def test_a_gauge_has_its_length_whatever_a_member_reports(step: int, total: int) -> None:
    progress = RunProgress("r")
    event = Event(member="bank", role="active", at=math.inf, phase="train", step=step, total=total)
    progress.add(RunEvent(run="r", seq=0, event=event))
    assert len(Bar(io.StringIO()).line(progress)) < 200
    progress.end(RunEnded(run="r", status="ok", seconds=math.inf))
    assert "done in ?" in Bar(io.StringIO()).line(progress)
