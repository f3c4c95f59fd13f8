"""Runs beside each other: what they were given, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fednb.errors import DataError
from fednb.federation.messages import RunInfo
from fednb.text import plain

if TYPE_CHECKING:
    import pandas as pd

DEEP = 10  # runs from a fit to its evaluation, at most


def table(infos: Sequence[RunInfo], wanted: Sequence[str], trainings: Sequence[str]) -> pd.DataFrame:
    """`infos` newest first. Columns: run, title, seconds, MB, parameters that differ, figures."""
    import pandas as pd

    by_id = {info.run: info for info in infos}
    strange = [run for run in wanted if run not in by_id]
    if strange:
        raise DataError(f"there is no run {', '.join(strange)} among the latest; `%fed runs` lists them.")
    chosen = [by_id[run] for run in wanted] or [
        info for info in infos if info.protocol in trainings and info.status == "ok"
    ]
    names = dict.fromkeys(name for info in chosen for name in info.params)
    differ = [name for name in names if len({repr(info.params.get(name)) for info in chosen}) > 1]
    lines: list[dict[str, Any]] = []
    for info in chosen:
        figures = evaluated(info, infos)
        lines.append(
            {
                "run": plain(info.run, 64),
                "title": plain(info.title, 200),
                "s": round(info.seconds, 1),
                "MB": round(info.bytes / 1e6, 2),
                "fednb": plain(info.version, 100),
                **{plain(name, 200): _shown(info.params.get(name)) for name in differ},
                **{plain(name, 200): value for name, value in figures.items()},
            }
        )
    return pd.DataFrame(lines, columns=None if lines else ["run", "title", "s", "MB", "fednb"])


def evaluated(info: RunInfo, infos: Sequence[RunInfo]) -> dict[str, float]:
    """A run's own figures, and those of what followed it."""
    by_id = {each.run: each for each in infos}
    figures = dict(info.figures)
    for later in infos:  # newest first: of several evaluations the latest counts
        if later.run != info.run and later.status == "ok" and _leads_to(later, info.run, by_id):
            figures = {**later.figures, **figures}
    return figures


def _leads_to(info: RunInfo, run: str, by_id: dict[str, RunInfo]) -> bool:
    for _ in range(DEEP):
        if info.follows == run:
            return True
        if info.follows not in by_id:
            return False
        info = by_id[info.follows]
    return False


def _shown(value: Any) -> Any:
    return plain(value, 200) if isinstance(value, str) else value
