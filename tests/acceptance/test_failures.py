"""What happens when a member is killed, a notebook goes away or a run is cut off: real processes, 2048 bits."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jupyter_client.manager import KernelManager

import fednb
from fednb.errors import DataError, FednbError, LinkError, PeerLost
from fednb.federation import launch
from fednb.federation.messages import RunEnded, RunEvent
from fednb.models import SecureBoostClassifier, VerticalLogisticRegression

SECONDS = 60.0
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = 5
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency]
release = ["coefficients"]
[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
"""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[launch.Running]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 6))
    y = (X @ [1, -1, 0.5, 1, 0.3, -0.7] + rng.logistic(size=400) > 0).astype(int)
    ids = [f"S{k:05d}" for k in range(400)]
    pd.DataFrame(X[:, :3], columns=list("abc")).assign(sme_id=ids, default=y).to_csv(tmp_path / "loans.csv")
    pd.DataFrame(X[:, 3:], columns=list("def")).assign(sme_id=ids).to_csv(tmp_path / "invoices.csv", index=False)
    file = tmp_path / "federation.toml"
    file.write_text(FILE)
    with launch.up(file) as running:
        yield running


@pytest.fixture
def federation(running: launch.Running) -> Iterator[fednb.Federation]:
    with fednb.connect(running) as federation:
        yield federation


def start_fit(federation: fednb.Federation, frame: fednb.VerticalFrame, **params: Any) -> str:
    """Begin a fit without waiting for it."""
    return federation.start(
        "vertical_logistic",
        cast={"active": ["bank"], "passive": ["agency"], "coordinator": [federation.coordinator]},
        data=frame.refs(label=("bank", "default")),
        params={"max_iter": 20, "tol": 1e-9, **params},
    )


def until_step(federation: fednb.Federation, run: str, step: int) -> None:
    """Watch a run until its training has come that far."""
    for item in federation.watch(run):
        assert isinstance(item, RunEvent), f"the run ended before step {step}: {item}"
        if item.event.phase == "train" and item.event.step >= step:
            return


def is_step_of(item: RunEvent | RunEnded, member: str) -> bool:
    """Whether the item reports an iteration done (not a pulse in between)."""
    if not isinstance(item, RunEvent):
        return False
    return item.event.member == member and item.event.phase == "train" and bool(item.event.metrics)


def end_of(federation: fednb.Federation, run: str) -> RunEnded:
    return next(item for item in federation.watch(run) if isinstance(item, RunEnded))


def restart(running: launch.Running, member: str) -> None:
    """Start a killed member again, as its owner would."""
    dead = running.members[member]
    dead.wait()
    if dead.stdin is not None:
        dead.stdin.close()
    arguments = ["--file", str(running.federation.path.absolute()), "--sockets", str(running._sockets / f"{member}-2")]
    running._spawn(member, ["party", str(running.root / member), *arguments])
    to = running.members[member].stdin
    assert to is not None
    to.write(running.address + "\n")
    to.flush()


def wait_until_up(federation: fednb.Federation, member: str) -> None:
    deadline = time.monotonic() + SECONDS
    came = threading.Event()
    federation.endpoint.watch(lambda seen: came.set() if seen.name == member and seen.up else None)
    while not federation.members()[member].up:
        assert came.wait(max(0.0, deadline - time.monotonic())), f"{member} did not come up"


def until_moment(federation: fednb.Federation, run: str, moment: float) -> None:
    """Watch a run until an iteration is done after that moment (unix seconds)."""
    for item in federation.watch(run):
        assert isinstance(item, RunEvent), f"the run has ended: {item}"
        if is_step_of(item, "coordinator") and item.event.at > moment:
            return


def align(federation: fednb.Federation) -> fednb.VerticalFrame:
    return federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")


@pytest.mark.slow
def test_a_run_cut_off_by_a_kill_names_the_member_and_resumes_to_the_same_model(
    running: launch.Running, federation: fednb.Federation
) -> None:
    frame = align(federation)
    whole = VerticalLogisticRegression(tol=1e-9).fit(frame, y="bank.default")

    run = start_fit(federation, frame)
    until_step(federation, run, 4)
    running.members["agency"].send_signal(signal.SIGKILL)
    began = time.monotonic()
    ended = end_of(federation, run)
    assert ended.status == "failed" and ended.member == "agency" and ended.error_type == "PeerLost"
    assert time.monotonic() - began < 15
    with pytest.raises(PeerLost, match="agency did not answer: it is down"):
        align(federation)
    assert federation.members()["bank"].up, "the others stay"

    restart(running, "agency")
    wait_until_up(federation, "agency")
    resumed = VerticalLogisticRegression(tol=1e-9).fit(frame, y="bank.default", resume=run)
    steps = [item.event.step for item in federation.watch(run) if is_step_of(item, "coordinator")]
    assert steps.count(1) == 1 and steps[-1] == 20, "it went on, it did not begin anew"
    assert resumed.n_iter_ == whole.n_iter_
    for party in ("bank", "agency"):
        assert np.array_equal(np.asarray(resumed.coef_[party]), np.asarray(whole.coef_[party]))
    with pytest.raises(DataError, match="has ended well"):
        federation.resume(run)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["agency", "bank", "coordinator"])
def test_a_member_killed_in_mid_training_under_fednb_up_is_named_though_all_others_are_stopped(
    running: launch.Running, federation: fednb.Federation, victim: str
) -> None:
    run = start_fit(federation, align(federation), max_iter=200)
    until_step(federation, run, 2)

    def keep_up() -> None:  # what the command does
        try:
            running.wait()
        except PeerLost:
            running.stop()

    launcher = threading.Thread(target=keep_up)
    launcher.start()
    began = time.monotonic()
    running.members[victim].send_signal(signal.SIGKILL)
    with pytest.raises(PeerLost, match=f"{victim} has died") as lost:
        federation._follow(run, "the fit")
    assert lost.value.member == victim and time.monotonic() - began < 10
    launcher.join()
    assert all(member.poll() is not None for member in running.members.values())


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [True, False])
def test_a_run_survives_the_restart_of_its_notebook_but_not_an_interrupt(
    running: launch.Running, federation: fednb.Federation, restarted: bool
) -> None:
    notebook = KernelManager(kernel_name="python3")
    notebook.start_kernel()
    client = notebook.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=SECONDS)
        client.execute(f"%load_ext fednb\n%fed connect {running.federation.path}", reply=True, timeout=SECONDS)
        client.execute(
            "%%coordinator\nframe = fed.align({'bank': 'loans', 'agency': 'invoices'}, on='sme_id')\n"
            "VerticalLogisticRegression(max_iter=200, tol=1e-12).fit(frame, y='bank.default')"
        )
        deadline = time.monotonic() + SECONDS
        while not (runs := federation.runs()).get("title", pd.Series(dtype=str)).str.contains("Logistic").any():
            assert time.monotonic() < deadline, "the fit did not begin"
            threading.Event().wait(0.1)
        run = str(runs["run"].iloc[0])
        until_step(federation, run, 2)
        if restarted:
            notebook.restart_kernel()  # Jupyter interrupts it first
            until_moment(federation, run, time.time() + 1)
            federation.cancel(run)
        else:
            notebook.interrupt_kernel()
        assert end_of(federation, run).status == "cancelled"
    finally:
        client.stop_channels()
        notebook.shutdown_kernel(now=True)


@pytest.mark.slow
def test_boosting_cut_off_between_two_trees_resumes_to_the_same_model(
    running: launch.Running, federation: fednb.Federation
) -> None:
    train, test = align(federation).split(0.3, 0)
    params = {"n_estimators": 12, "subsample": 0.8, "max_depth": 2}
    whole = SecureBoostClassifier(**params).fit(train, y="bank.default", eval_frame=test)
    rows = train.joined([train, test], "both")
    run = federation.start(
        "vertical_boosting",
        cast={"active": ["bank"], "passive": ["agency"]},
        data=rows.refs(label=("bank", "default")),
        params={**params, "validation": len(test)},
    )
    until_step(federation, run, 3)
    running.members["agency"].send_signal(signal.SIGKILL)
    ended = end_of(federation, run)
    assert ended.status == "failed" and ended.member == "agency"
    restart(running, "agency")
    wait_until_up(federation, "agency")
    resumed = SecureBoostClassifier(**params).fit(train, y="bank.default", eval_frame=test, resume=run)
    seen = [item for item in federation.watch(run) if is_step_of(item, "bank")]
    steps = [item.event.step for item in seen if "loss" in item.event.metrics]  # of whole rounds
    assert steps.count(1) == 1 and steps[-1] == 12, "it went on, it did not begin anew"
    assert resumed.history_.equals(whole.history_)
    assert sorted(resumed.feature_importances_["gain"]) == sorted(whole.feature_importances_["gain"])
    assert resumed.evaluate(test).log_loss == whole.evaluate(test).log_loss


@pytest.mark.slow
def test_a_run_survives_the_notebook_that_began_it(running: launch.Running) -> None:
    with fednb.connect(running) as first:
        frame = align(first)
        run = start_fit(first, frame, max_iter=6)
        until_step(first, run, 1)
    with fednb.connect(running) as second:
        assert run in list(second.runs()["run"])
        assert end_of(second, run).status == "ok"


@pytest.mark.slow
def test_a_killed_coordinator_is_named_and_its_runs_are_remembered(
    running: launch.Running, federation: fednb.Federation
) -> None:
    frame = align(federation)
    run = start_fit(federation, frame)
    until_step(federation, run, 3)
    running.members["coordinator"].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    while federation.members()["coordinator"].up:
        assert time.monotonic() < deadline
        with pytest.raises(FednbError):
            federation.runs()
    with pytest.raises(LinkError, match="coordinator"):
        federation.runs()
    restart(running, "coordinator")
    wait_until_up(federation, "coordinator")
    runs = federation.runs().set_index("run")
    assert runs.loc[run, "status"] == "failed" and "fed.resume" in runs.loc[run, "error"]
    assert federation.resume(run).public("bank")["n_iter"] == 20


@pytest.mark.slow
def test_a_cancelled_run_stops_at_every_member_and_leaves_them_ready(federation: fednb.Federation) -> None:
    frame = align(federation)
    run = start_fit(federation, frame)
    until_step(federation, run, 2)
    federation.cancel(run)
    assert end_of(federation, run).status == "cancelled"
    assert VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default").n_iter_ == 1
