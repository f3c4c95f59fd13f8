"""Whether all parties' features are distributed as before a point of time that one party knows of each row.

    coordinator                     active (t, X_a)                 passive q (X_q), one or more
      | <── Size ─────────────────────┼── Size ──────────────────── |
      |── Dealt ──────────────────────┼── Dealt, Correction ──────> |
      |                               |── Pair ───────────────────> |
      |                               |── Hidden [t >= since] - R ─> |     integers modulo 2**64: see `dealt`
      |                               | <── Hidden cells - R_q ───── |     a column of 0 and 1 for each cell
      |                               | <── Cells rows, share ────── |
      |      index of each feature    |

Each owner cuts its columns into tenths, of ten rows or more, missing values apart. The active party learns, from its
share and the passive party's, how many rows of each numbered cell are of the later time; features travel in a random
order and without names. It computes Σ (q - p) · ln(q / p) over the cells, as in `bin_stability`. Passive parties learn
nothing: had they the counts, a cell with rows of one time only would tell them the time of these rows.

| role | learns |
|---|---|
| active | of each passive party: its number of features; rows, and rows of the later time, of numbered cells |
| passive | nothing: of the time bits uniform at random |
| coordinator | rows; numbers of cells |
| coordinator, analyst | each feature's population stability index to two digits; rows of either time, 100 or more |

The active party sees to it that the rows of either time, beside those of earlier such runs, do not come down to a few.
"""

from __future__ import annotations

import secrets

import numpy as np

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import dealt
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.bin_stability import DIGITS, MIN_ROWS, index
from fednb.protocols.cuts import Integers, fit_cuts
from fednb.protocols.dealt import Correction, Dealt, Hidden, Pair
from fednb.protocols.features import MIN_ROWS as LEAST
from fednb.protocols.features import check_numbers
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

BINS = 10
MOST_CELLS = 20_000


class PeriodParams(Params):
    since: float  # rows with this value of the label's column, or a larger one, are of the later time


class Size(Message):
    """A party to the coordinator."""

    discloses = Disclosure("numbers of rows and cells")

    rows: int
    cells: int


class Cells(Message):
    """A passive party to the active one."""

    discloses = Disclosure("rows of numbered cells, and shares of how many are of the later time", columns=True)

    sizes: np.ndarray  # int64 [features] cells of each
    rows: np.ndarray  # int64 [cells] feature after feature
    share: np.ndarray  # uint64 [cells] modulo 2**bits, see `_modulus`
    numbers: int  # cells


def active(link: Link, data: Dataset, params: PeriodParams, run: RunContext) -> Outcome:
    (coordinator,) = link.cast["coordinator"]
    names, cells = _cut(link.me, data)
    n = len(np.asarray(data.X))
    later = check_numbers(link.me, data.y, data.label, n) >= params.since
    now = int(later.sum())
    if min(now, n - now) < MIN_ROWS:
        raise DataError(
            f"{link.me} has fewer than {MIN_ROWS} rows on one side of {data.label!r} = {params.since:g}, too few to "
            "tell shift from chance."
        )
    run.apart(str(data.label), later.astype(np.int64))
    link.send(coordinator, Size(rows=n, cells=1))
    shares = dealt.shares(link, later[:, None], _pairs(link), coordinator, run)
    found = {}
    for passive in link.cast["passive"]:
        said, own = link.recv(passive, Cells), shares[passive].ravel()
        rows, counts = _opened(passive, said, own, n)
        ends = np.cumsum(said.sizes)
        starts = ends - said.sizes
        found[passive] = [_index(rows[a:b], counts[a:b]) for a, b in zip(starts, ends, strict=True)]
    own_index = {}
    for name, x in zip(names, cells, strict=True):
        rows = np.bincount(x[x >= 0]).astype(np.int64)
        own_index[name] = _index(rows, np.bincount(x[(x >= 0) & later], minlength=len(rows)).astype(np.int64))
    return Outcome(public={"psi": own_index, "numbered": found, "now": now, "then": n - now})


def passive(link: Link, data: Dataset, params: PeriodParams, run: RunContext) -> Outcome:
    (active,), (coordinator,) = link.cast["active"], link.cast["coordinator"]
    names, cells = _cut(link.me, data)
    n = len(np.asarray(data.X))
    # numbers that the active party sees are no positions; `run.rng` is not for secrets
    order = np.random.default_rng(secrets.randbits(128)).permutation(len(names))
    sizes = np.array([cells[j].max(initial=-1) + 1 for j in order], dtype=np.int64)
    inside = np.zeros((n, int(sizes.sum())), dtype=np.bool_)
    for start, j in zip(np.cumsum(sizes) - sizes, order, strict=True):
        there = np.flatnonzero(cells[j] >= 0)
        inside[there, start + cells[j][there]] = True
    link.send(coordinator, Size(rows=n, cells=inside.shape[1]))
    share = dealt.shares(link, inside, _pairs(link), coordinator, run)[active].ravel()
    rows = inside.sum(axis=0, dtype=np.int64)
    link.send(active, Cells(sizes=sizes, rows=rows, share=share & _modulus(n), numbers=len(rows)))
    return Outcome(public={"order": [names[j] for j in order]})


def coordinator(link: Link, data: Dataset, params: PeriodParams, run: RunContext) -> Outcome:
    everybody = [*link.cast["active"], *link.cast["passive"]]
    sizes = {member: link.recv(member, Size) for member in everybody}
    rows = {size.rows for size in sizes.values()}
    if len(rows) != 1:
        said = ", ".join(f"{member} {size.rows}" for member, size in sizes.items())
        raise DataError(f"the parties do not have the same rows ({said}). Align the tables again.")
    for member, size in sizes.items():
        if not 0 <= size.cells <= MOST_CELLS:
            raise UnexpectedMessage(f"{member} announced {size.cells} cells; {MOST_CELLS} is the most", member=member)
    width = {member: size.cells for member, size in sizes.items()}
    dealt.deal(link, rows.pop(), width, _pairs(link), run)
    return Outcome()


def _pairs(link: Link) -> dealt.Pairs:
    (active,) = link.cast["active"]
    return [(active, passive) for passive in link.cast["passive"]]


def _modulus(rows: int) -> np.uint64:
    """As many low bits as a count needs: who hands in something else than 0 and 1 learns no more a cell."""
    return np.uint64((1 << rows.bit_length()) - 1)


def _cut(party: str, data: Dataset) -> tuple[list[str], list[Integers]]:
    """Names of the columns that are numbers, and the cell of each row [n], -1 in cells of too few."""
    if data.X is None or len(data.X) < 2 * MIN_ROWS:
        raise DataError(f"{party} has fewer than {2 * MIN_ROWS} rows in this frame, too few to tell shift from chance.")
    X = np.asarray(data.X, dtype=np.float64)
    found = []
    for x in X.T:
        cuts = fit_cuts(x, bins=BINS, method="quantile", least=LEAST)
        cells = cuts.cells(x)
        counted = np.bincount(cells, minlength=cuts.size) >= LEAST
        found.append(np.where(counted, np.cumsum(counted) - 1, -1)[cells])
    return list(data.columns), found


def _opened(member: str, said: Cells, own: dealt.Ring, n: int) -> tuple[Integers, Integers]:
    """Rows, and rows of the later time, of each cell. UnexpectedMessage for what cannot be."""
    arrays = (said.sizes, said.rows)
    sound = all(a.dtype == np.int64 and a.ndim == 1 and bool((a >= 0).all()) for a in arrays)
    if not sound or said.share.dtype != np.uint64 or not said.share.shape == said.rows.shape == own.shape:
        raise UnexpectedMessage(f"{member} sent cells that cannot be read", member=member)
    if said.sizes.sum() != len(own) or (said.rows < LEAST).any() or (said.rows > n).any():
        raise UnexpectedMessage(
            f"{member} sent cells with fewer than {LEAST} rows, or more rows than there are", member=member
        )
    counts = ((own + said.share) & _modulus(n)).astype(np.int64)
    if (counts > said.rows).any():
        raise UnexpectedMessage(f"{member} sent shares that count no rows", member=member)
    return said.rows, counts


def _index(rows: Integers, now: Integers) -> float:
    return round(index(rows - now, now), DIGITS) if len(rows) else 0.0


PROTOCOL = Protocol(
    name="period_stability",
    version=1,
    params=PeriodParams,
    roles={
        "active": Role(active, needs=("X", "missing", "unfit", "y"), figures=True, columns=True),
        "passive": Role(passive, many=True, needs=("X", "missing", "unfit"), figures=True, columns=True),
        "coordinator": Role(coordinator),
    },
    sends={
        ("active", "coordinator"): (Size,),
        ("passive", "coordinator"): (Size,),
        ("coordinator", "active"): (Dealt,),
        ("coordinator", "passive"): (Dealt, Correction),
        ("active", "passive"): (Pair, Hidden),
        ("passive", "active"): (Hidden, Cells),
    },
    learns={
        "active": "rows and rows of the later time of numbered cells of each passive party's features",
        "passive": "nothing",
        "coordinator": "the population stability index of each feature, to two digits",
    },
    learns_with_key={"active": "in which cell of each feature a row is", "passive": "of which time each row is"},
)
