"""Runs in MLflow: parameters, figures, progress by iteration, and the receipt of each, for whoever tracks models there.

What goes out is what the coordinator has on record: names, figures, sizes. Where the tracking server stands, who may
write there and who may read is MLflow's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fednb.errors import ConfigError, DataError
from fednb.federation import messages as m
from fednb.federation.compared import evaluated
from fednb.federation.receipts import table
from fednb.text import plain

if TYPE_CHECKING:
    from fednb.federation.client import Federation

STATUS = {"ok": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
TAG = "fednb.run"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it stands in a query


def export(
    federation: Federation, infos: Sequence[m.RunInfo], wanted: Sequence[str], experiment: str, uri: str | None
) -> dict[str, str]:
    """MLflow's id of each run in `wanted`. A run that is there already is not written twice."""
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise ConfigError("exporting runs needs MLflow: pip install 'fednb[mlflow]'.") from None
    by_id = {info.run: info for info in infos}
    strange = [run for run in wanted if run not in by_id or by_id[run].status == "running" or not _ID.fullmatch(run)]
    if strange:
        raise DataError(f"there is no run {', '.join(strange)} that has ended; `%fed runs` lists them.")
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    home = client.create_experiment(experiment) if found is None else found.experiment_id
    made: dict[str, str] = {}
    for run in wanted:
        there = client.search_runs([home], f"tags.`{TAG}` = '{run}'")
        if there:
            made[run] = there[0].info.run_id
            continue
        made[run] = _write(client, home, by_id[run], evaluated(by_id[run], infos), federation.watch(run))
    return made


def _write(client: Any, home: str, info: m.RunInfo, figures: dict[str, float], record: Iterable[Any]) -> str:
    began = int(1000 * info.started)
    members = ", ".join(player for players in info.cast.values() for player in players)
    tags = {TAG: info.run, "fednb.version": info.version, "fednb.members": members, "fednb.protocol": info.protocol}
    for what, digests in (("data", info.data), ("code", info.code)):
        tags |= {_named(f"fednb.{what}.{member}"): digest for member, digest in digests.items()}
    tags = {name: plain(value, 500) for name, value in tags.items()}
    run = client.create_run(home, start_time=began, tags=tags, run_name=plain(info.title, 200)).info.run_id
    for name, value in info.params.items():
        client.log_param(run, _named(name), plain(str(value), 200))
    for name, number in (*figures.items(), ("seconds", info.seconds), ("bytes", float(info.bytes))):
        client.log_metric(run, _named(name), number)
    for item in record:
        if isinstance(item, m.RunEvent) and item.event.role == "coordinator":
            for name, number in item.event.metrics.items():
                at = int(1000 * item.event.at)
                client.log_metric(run, _named(name), number, step=item.event.step, timestamp=at)
        elif isinstance(item, m.RunEnded):
            client.log_text(run, table(item.receipts).to_csv(index=False), "receipts.csv")
    client.set_terminated(run, STATUS[info.status], end_time=began + int(1000 * info.seconds))
    return str(run)


def _named(name: str) -> str:
    """MLflow takes letters, digits and a few signs."""
    return "".join(sign if sign.isalnum() or sign in "_-. /" else "_" for sign in plain(name, 200))
