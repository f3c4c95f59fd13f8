"""A protocol whose steps go on only when a test says so: for looking at a run in the middle."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.wire.link import Link

STEPS = 10
GATE = "FEDNB_TEST_GATE"  # a folder: the run goes on from step k when the file k is there


def member(link: Link, data: Dataset, params: Params, run: RunContext) -> Outcome:
    for step in range(1, STEPS + 1):
        run.progress("work", step, STEPS, loss=1 / step)
        while not (Path(os.environ[GATE]) / str(step)).exists():
            run.check()  # a cancelled run ends here
            threading.Event().wait(0.02)
    return Outcome(public={"steps": STEPS})


GATED = Protocol("gated", 1, Params, {"member": Role(member, many=True)}, {"member": "nothing"})
