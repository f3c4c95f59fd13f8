"""Runs beside each other: what they were given, and what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fednb.errors import DataError
from fednb.federation.messages import RunInfo
from fednb.federation.views import ComparisonView, Estimate, EvaluationView
from fednb.text import plain

if TYPE_CHECKING:
    import pandas as pd

DEEP = 10  # runs from a fit to its evaluation, at most


def table(infos: Sequence[RunInfo], wanted: Sequence[str], trainings: Sequence[str]) -> pd.DataFrame:
    """`infos` newest first. Columns: run, title, seconds, MB, fednb, data, code, parameters that differ, figures.

    Runs have the same `data` (`code`) if each member used the same table (the same code).
    """
    import pandas as pd

    chosen = chosen_of(infos, wanted, trainings)
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
                "data": together(info.data),
                "code": together(info.code),
                **{plain(name, 200): _shown(info.params.get(name)) for name in differ},
                **{plain(name, 200): value for name, value in figures.items()},
            }
        )
    return pd.DataFrame(lines, columns=None if lines else ["run", "title", "s", "MB", "fednb", "data", "code"])


def chosen_of(infos: Sequence[RunInfo], wanted: Sequence[str], trainings: Sequence[str]) -> list[RunInfo]:
    """The `wanted`, or all fits that ended well. Raises DataError for a run that is not among `infos`."""
    by_id = {info.run: info for info in infos}
    strange = [run for run in wanted if run not in by_id]
    if strange:
        raise DataError(f"there is no run {', '.join(strange)} among the latest; `%fed runs` lists them.")
    return [by_id[run] for run in wanted] or [
        info for info in infos if info.protocol in trainings and info.status == "ok"
    ]


def together(digests: Mapping[str, str]) -> str:
    """Eight digits that stand for the digests of all members; "" where there are none."""
    if not digests:
        return ""
    said = "\n".join(f"{member}\t{digests[member]}" for member in sorted(digests))
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def view(
    infos: Sequence[RunInfo],
    wanted: Sequence[str],
    trainings: Sequence[str],
    curves: Mapping[str, Sequence[float]],
    curve: str,
) -> ComparisonView:
    """The same runs as a figure; `curves` has a figure of theirs, `curve`, by iteration, by run."""
    results: dict[str, EvaluationView] = {}
    shown: dict[str, list[float | None]] = {}
    for info in chosen_of(infos, wanted, trainings):
        name = plain(f"{info.run[:6]} {info.title}", 200)
        figures, ends = evaluated(info, infos), intervals(info, infos)
        auc, ks = (_estimate(figures.get(key), ends.get(key)) for key in ("auc", "ks"))
        results[name] = EvaluationView(auc=auc, ks=ks)
        shown[name] = [*curves.get(info.run, ())]
    return ComparisonView(results=results, curves=shown, curve=curve, title=f"{len(results)} runs")


def evaluated(info: RunInfo, infos: Sequence[RunInfo]) -> dict[str, float]:
    """A run's own figures, and those of what followed it."""
    figures: dict[str, float] = {}
    for each in _with_followers(info, infos):
        figures = {**each.figures, **figures}
    return figures


def intervals(info: RunInfo, infos: Sequence[RunInfo]) -> dict[str, tuple[float, float]]:
    """Of these figures, of those that have one."""
    found: dict[str, tuple[float, float]] = {}
    for each in _with_followers(info, infos):
        found = {**each.intervals, **found}
    return found


def _with_followers(info: RunInfo, infos: Sequence[RunInfo]) -> list[RunInfo]:
    """A run and what followed it, newest first: of several evaluations the latest counts."""
    by_id = {each.run: each for each in infos}
    after = [
        each for each in infos if each.run != info.run and each.status == "ok" and _leads_to(each, info.run, by_id)
    ]
    return [info, *after]


def _estimate(value: float | None, ends: tuple[float, float] | None) -> Estimate:
    low, high = ends or (None, None)
    return Estimate(value=value, low=low, high=high)


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
