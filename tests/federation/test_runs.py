"""What the coordinator keeps of a run outlives it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from fednb.federation import messages as m
from fednb.federation.runs import RunStore


def test_a_run_with_released_coefficients_is_there_after_a_restart(tmp_path: Path) -> None:
    info = m.RunInfo(
        run="ab12",
        protocol="vertical_logistic",
        title="a fit",
        status="running",
        started=time.time(),
        seconds=0.0,
        by="ann",
        cast={"passive": ["agency"]},
    )
    record = RunStore(tmp_path).begin(info)
    result = m.MemberResult("passive", {"coef": np.array([0.25, -1.5]), "features": ["a", "b"]})
    record.end(m.RunEnded(run="ab12", status="ok", results={"agency": result}, seconds=1.0))
    assert not list(tmp_path.glob("*.draft"))
    again = RunStore(tmp_path).get("ab12")
    assert again.info.status == "ok" and again.ended is not None
    assert again.ended.results["agency"].public["coef"] == [0.25, -1.5]
