"""Private set intersection with a large set that was prepared once: then each alignment costs what the small set does.

Both parties keep a secret for an epoch, which begins with a run of its own and ends on a day that is agreed on then:

    large (k_l, a million ids)        small (k_s)                     coordinator
      |── Announce size, formats ───────┼──────────────────────────> |
      | <── Agreed size ────────────────┼ <── Agreed size ────────── |
      |── Points k_l·H(x) ────────────> |── Points k_s·k_l·H(x) ───> |   keeps them

and is used in any number of runs, with other ids of the small side each time if it likes:

      |                                 |── Announce size, formats ─> |
      | <── Agreed size ────────────────┼ <── Agreed size ────────── |
      | <──────────── Points k_s·H(y) ──|                            |
      |── Points k_l·k_s·H(y) ──────────┼──────────────────────────> |   compares them with what it keeps
      | <── Matches: positions ─────────┼ <── Matches: positions ─── |
      |── Secret, Check ──────────────> |                            |   same ids? (keyed hash, both ways)
      | <──────────────────────── Check |                            |

In one run everybody learns what `psi` tells. But `psi` has new secrets and a new order each time, and here they stay,
so that the runs of one epoch can be linked:

| role | learns beyond psi, over the runs of one epoch |
|---|---|
| large | which of the small side's ids come again, also of those that it does not have (not what they are): and from |
| | what changes between runs, which of the ids that both have hides behind which point |
| small | nothing |
| coordinator | which entries of either set come again or match again, by number; no id and no hash of one |

So it is an option, and never what `align` does by itself. A party that must not be followed from run to run uses psi.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from fednb.crypto import curve
from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import psi
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.ids import Prepared, TextColumn, order
from fednb.protocols.matching import SortedPoints, common
from fednb.protocols.psi import CHUNK, Announce, Check, Matches, Points, Secret
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

DAY = 86400.0


class PrepareParams(Params):
    duplicates: Literal["refuse", "drop"] = "refuse"
    max_ids: int = 10_000_000
    days: Annotated[float, Meta(gt=0, le=366)] = 30.0  # how long the epoch lasts


class PreparedParams(Params):
    epoch: str  # the run that prepared the large set
    duplicates: Literal["refuse", "drop"] = "refuse"
    max_ids: int = 10_000_000  # of the small set


class Agreed(Message):
    """The coordinator to both parties."""

    discloses = Disclosure("how many ids the travelling set has", sizes="ids")

    ids: int  # in the set that travels now


# ---------------------------------------------------------------- once an epoch


def prepare_large(link: Link, data: Dataset, params: PrepareParams, run: RunContext) -> Outcome:
    (coordinator,), (small,) = link.cast["coordinator"], link.cast["small"]
    own, formats = psi.bring(link, data, params)
    _announce(link, coordinator, own, formats)
    shuffled = psi.secret_order(len(own.ids))
    secret = _new_secret()
    advance = psi.progress(run, 2 * len(shuffled), "prepare")
    _send_own(link, small, own.take(shuffled), run.name, _scalar(secret), run, advance)
    kept = TextColumn.pack(own.take(shuffled))
    return Outcome(
        private={
            **_epoch(link, run.name, params.days),
            "secret": secret,
            "rows": own.rows[shuffled],
            "text": kept.text,
            "stops": kept.stops,
            "said": _said(own, formats),
        },
        public={**_said(own, formats), "ends": time.time() + params.days * DAY},
    )


def prepare_small(link: Link, data: Dataset, params: PrepareParams, run: RunContext) -> Outcome:
    (coordinator,), (large,) = link.cast["coordinator"], link.cast["large"]
    secret = _new_secret()
    count = _agreed(link, coordinator, params.max_ids)
    _pass_on(link, large, coordinator, count, _scalar(secret), run, psi.progress(run, count, "prepare"))
    return Outcome(private={**_epoch(link, run.name, params.days), "secret": secret})


def prepare_coordinator(link: Link, data: Dataset, params: PrepareParams, run: RunContext) -> Outcome:
    (large,), (small,) = link.cast["large"], link.cast["small"]
    said = _hear(link, large, params.max_ids)
    points = SortedPoints(_collect(link, small, said.ids, run))
    return Outcome(
        private={
            **_epoch(link, run.name, params.days),
            "points": points.points,
            "order": points.order,
            "formats": said.formats,
        },
        public={"ids": said.ids},
    )


# ---------------------------------------------------------------- each time


def large(link: Link, data: Dataset, params: PreparedParams, run: RunContext) -> Outcome:
    (coordinator,), (small,) = link.cast["coordinator"], link.cast["small"]
    kept = _open(link, data.part, params.epoch)
    count = _agreed(link, coordinator, params.max_ids)
    advance = psi.progress(run, count, "intersect")
    _pass_on(link, small, coordinator, count, _scalar(kept["secret"]), run, advance)
    positions = link.recv(coordinator, Matches).positions
    psi.check_positions(positions, len(kept["rows"]), coordinator)
    ids = TextColumn(kept["text"], kept["stops"]).take(positions)
    by_id = order(ids)
    psi.confirm(link, [link.me, small], [ids[i] for i in by_id.tolist()], run.name)
    index = kept["rows"][positions[by_id]]
    return Outcome(private={"index": index}, public={**kept["said"], "matched": len(index)})


def small(link: Link, data: Dataset, params: PreparedParams, run: RunContext) -> Outcome:
    (coordinator,), (large,) = link.cast["coordinator"], link.cast["large"]
    kept = _open(link, data.part, params.epoch)
    own, formats = psi.bring(link, data, params)
    _announce(link, coordinator, own, formats)
    shuffled = psi.secret_order(len(own.ids))
    advance = psi.progress(run, 2 * len(shuffled), "intersect")
    _send_own(link, large, own.take(shuffled), params.epoch, _scalar(kept["secret"]), run, advance)
    positions = link.recv(coordinator, Matches).positions
    psi.check_positions(positions, len(shuffled), coordinator)
    found = own.by_id(shuffled[positions])
    psi.confirm(link, [large, link.me], own.ids[found], run.name)
    return Outcome(private={"index": own.rows[found]}, public={**_said(own, formats), "matched": len(found)})


def coordinator(link: Link, data: Dataset, params: PreparedParams, run: RunContext) -> Outcome:
    (large,), (small,) = link.cast["large"], link.cast["small"]
    kept = _open(link, data.part, params.epoch)
    said = _hear(link, small, params.max_ids)
    points = _collect(link, large, said.ids, run)
    found = common([SortedPoints.restore(kept["points"], kept["order"]), psi.sort_points(small, points)])
    if not len(found[0]):
        raise psi.nothing_common({large: kept["formats"], small: said.formats})
    for member, positions in zip((large, small), found, strict=True):
        link.send(member, Matches(positions))
    return Outcome(
        private={"rows": len(found[0])},
        public={"matched": len(found[0]), "ids": {large: len(kept["order"]), small: said.ids}},
    )


# ---------------------------------------------------------------- parts of both


def _announce(link: Link, coordinator: str, own: Prepared, formats: dict[str, int]) -> None:
    link.send(coordinator, Announce(ids=len(own.ids), formats=formats))
    if link.recv(coordinator, Agreed).ids != len(own.ids):
        raise UnexpectedMessage(f"{coordinator} agreed to another number of ids than announced", member=coordinator)


def _hear(link: Link, owner: str, limit: int) -> Announce:
    """At the coordinator: what the owner of a set announces, told to both."""
    said = link.recv(owner, Announce)
    if not 0 < said.ids <= limit:
        raise UnexpectedMessage(f"{owner} announced {said.ids} ids", member=owner)
    for member in (*link.cast["large"], *link.cast["small"]):
        link.send(member, Agreed(ids=said.ids))
    return said


def _agreed(link: Link, coordinator: str, limit: int) -> int:
    count = link.recv(coordinator, Agreed).ids
    if not 0 < count <= limit:
        raise UnexpectedMessage(f"{coordinator} agreed to {count} ids", member=coordinator)
    return count


def _send_own(
    link: Link, to: str, ids: list[bytes], domain: str, secret: curve.Scalar, run: RunContext, advance: psi.Advance
) -> None:
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        hashed = curve.hash_to_curve(some, domain.encode(), run.threads)
        advance(len(some))
        link.send(to, Points(curve.multiply(hashed, secret, run.threads)))
        advance(len(some))


def _pass_on(
    link: Link, sender: str, to: str, count: int, secret: curve.Scalar, run: RunContext, advance: psi.Advance
) -> None:
    for start in range(0, count, CHUNK):
        points = psi.receive(link, sender, min(CHUNK, count - start))
        link.send(to, Points(psi.blind(points, secret, sender, run)))
        advance(len(points))


def _collect(link: Link, sender: str, count: int, run: RunContext) -> curve.Points:
    points = np.empty((count, 32), np.uint8)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        points[start:stop] = psi.receive(link, sender, stop - start)
        run.progress("match", stop, count)
    return points


def _said(own: Prepared, formats: Mapping[str, int]) -> dict[str, Any]:
    return {
        "rows": own.read,
        "ids": len(own.ids),
        "duplicates": own.duplicates,
        "missing": own.missing,
        "formats": dict(formats),
    }


def _new_secret() -> bytes:
    return secrets.token_bytes(32)


def _scalar(secret: bytes) -> curve.Scalar:
    return curve.Scalar(secret)


def _epoch(link: Link, run: str, days: float) -> dict[str, Any]:
    return {"epoch": run, "between": [*link.cast["large"], *link.cast["small"]], "ends": time.time() + days * DAY}


def _open(link: Link, part: Mapping[str, Any], epoch: str) -> Mapping[str, Any]:
    """What this member keeps of the epoch. Raises DataError when it is of another one, of other parties, or over."""
    between = [*link.cast["large"], *link.cast["small"]]
    if part.get("epoch") != epoch or part.get("between") != between:
        raise DataError(f"{link.me} keeps no preparation {epoch!r} for {' and '.join(between)}; prepare the set again.")
    if time.time() > part["ends"]:
        raise DataError(f"the preparation {epoch!r} is over: its secrets are no longer used. Prepare the set again.")
    return part


PREPARE = Protocol(
    name="psi_prepare",
    version=1,
    params=PrepareParams,
    roles={
        "large": Role(prepare_large, needs=("ids",)),
        "small": Role(prepare_small),
        "coordinator": Role(prepare_coordinator),
    },
    sends={
        ("large", "coordinator"): (Announce,),
        ("coordinator", "large"): (Agreed,),
        ("coordinator", "small"): (Agreed,),
        ("large", "small"): (Points,),
        ("small", "coordinator"): (Points,),
    },
    learns={
        "large": "nothing",
        "small": "how many ids the large side brought",
        "coordinator": "how many ids the large side brought, and the shapes in which they are written",
    },
    learns_with_key=dict.fromkeys(("large", "small"), "what it could in the alignments that this prepares"),
)
PROTOCOL = Protocol(
    name="psi_prepared",
    version=1,
    params=PreparedParams,
    roles={
        "large": Role(large, needs=("part",)),
        "small": Role(small, needs=("ids", "part")),
        "coordinator": Role(coordinator, needs=("part",)),
    },
    sends={
        ("small", "coordinator"): (Announce,),
        ("coordinator", "large"): (Agreed, Matches),
        ("coordinator", "small"): (Agreed, Matches),
        ("small", "large"): (Points, Check),
        ("large", "coordinator"): (Points,),
        ("large", "small"): (Secret, Check),
    },
    learns={
        "large": "the ids that both parties have, and how many ids the small side brought; over the runs of one epoch, "
        "which of the small side's ids come again, also of those that it does not have (not what they are), and which "
        "point stands for which of the ids that both have",
        "small": "the ids that both parties have, and how many ids the large side brought",
        "coordinator": "how many ids each party brought and how many they share; the shapes in which ids are written; "
        "over the runs of one epoch, which entries of either set come again or match again, by number",
    },
    learns_with_key=dict.fromkeys(
        ("large", "small"), "whether ids that it guesses are among the other's, in any run of this epoch"
    ),
)
