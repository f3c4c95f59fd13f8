"""Private set intersection beside OpenMined's PSI and SecretFlow's, in one run: seconds, ratios and peak memory.

    pip install openmined-psi
    python benchmarks/psi.py [--sizes 10000 100000] [--large] [--rounds 3] [--spu PYTHON]

Both may use two threads (OpenMined's library uses one: compare processor seconds too). Each measurement is a process
of its own, so that its peak memory is its own. fednb plays its three roles over the loopback network, with the
encoding, checking and decoding of every message; OpenMined's library is called directly: request, response, setup and
intersection, with messages in memory and its raw data structure, whose answer is exact. Half of the ids are common.
--spu names an interpreter with the package `spu`: ECDH over Curve25519 between two processes, as spu comes. --large
adds a million ids a side, for fednb only (the peers' figures grow linearly). Then a thousand ids are aligned with the
largest set, plainly and after its preparation; and, where spu is installed beside fednb, the largest sets by
method="spu" (RR22, in sandboxes) beside method="ecdh". The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from fednb.crypto.backend import describe
from fednb.federation import spu_engine
from fednb.federation.spu_engine import SpuEngine
from fednb.protocols import prepared_psi, psi, psi_spu
from fednb.protocols.base import Dataset, Outcome, Params, RoleFunction, RunContext
from fednb.wire.link import Link
from fednb.wire.loopback import play

THREADS = 2


def written(n: int, offset: int) -> np.ndarray:
    """Ids as a company writes them, in no order."""
    order = np.random.default_rng(offset).permutation(n) + offset
    return np.array([f"ZZ-{7919 * i % 10**9:09d}" for i in order.tolist()], dtype=object)


def fednb_psi(n: int) -> dict[str, float]:
    bank, agency = written(n, 0), written(n, n // 2)
    roles = {"bank": (psi.party, bank), "agency": (psi.party, agency), "coordinator": (psi.coordinator, None)}
    before, began = peak(), clock()
    out = perform(roles, {"party": ("bank", "agency"), "coordinator": ("coordinator",)}, psi.PsiParams())
    return result(began, before, out["coordinator"].public["matched"])


def unbalanced(n: int) -> dict[str, float]:
    """A thousand ids against n: seconds of a plain alignment, of preparing the n once, and of each alignment then."""
    small, large = written(1000, n - 500), written(n, 0)
    plain = {"bank": (psi.party, small), "agency": (psi.party, large), "coordinator": (psi.coordinator, None)}
    began = time.perf_counter()
    perform(plain, {"party": ("bank", "agency"), "coordinator": ("coordinator",)}, psi.PsiParams())
    seconds = {"plain": time.perf_counter() - began}
    cast = {"large": ("agency",), "small": ("bank",), "coordinator": ("coordinator",)}
    epoch = {
        "agency": (prepared_psi.prepare_large, large),
        "bank": (prepared_psi.prepare_small, None),
        "coordinator": (prepared_psi.prepare_coordinator, None),
    }
    began = time.perf_counter()
    kept = {member: out.private for member, out in perform(epoch, cast, prepared_psi.PrepareParams()).items()}
    seconds["prepare"] = time.perf_counter() - began
    each = {
        "agency": (prepared_psi.large, None),
        "bank": (prepared_psi.small, small),
        "coordinator": (prepared_psi.coordinator, None),
    }
    began = time.perf_counter()
    out = perform(each, cast, prepared_psi.PreparedParams(epoch="b"), kept)
    seconds["prepared"] = time.perf_counter() - began
    return seconds | {"matched": out["coordinator"].public["matched"]}


def perform(
    roles: Mapping[str, tuple[RoleFunction, np.ndarray | None]],
    cast: Mapping[str, tuple[str, ...]],
    params: Params,
    parts: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Outcome]:
    """Play each member's role on its ids over the loopback network."""

    def role(member: str) -> Callable[[Link], Outcome]:
        function, ids = roles[member]
        engine = SpuEngine(member) if function is psi_spu.party else None
        data = Dataset(ids=ids, part=(parts or {}).get(member, {}), engine=engine)
        return lambda link: function(link, data, params, RunContext(name="b", threads=THREADS))

    return play({member: role(member) for member in roles}, cast, timeout=600)


def by_spu(n: int) -> dict[str, float]:
    """Seconds of both methods, all that a run does included: the start of spu's processes and of their sandboxes."""
    bank, agency = written(n, 0), written(n, n // 2)
    cast = {"party": ("bank", "agency"), "coordinator": ("coordinator",)}
    seconds = {}
    for name, protocol in (("ecdh", psi), ("spu", psi_spu)):
        roles = {
            "bank": (protocol.party, bank),
            "agency": (protocol.party, agency),
            "coordinator": (protocol.coordinator, None),
        }
        began = time.perf_counter()
        out = perform(roles, cast, psi.PsiParams())
        seconds[name] = time.perf_counter() - began
        if out["coordinator"].public["matched"] != n - n // 2:
            raise SystemExit(f"wrong matches by {name}")
    return seconds


def openmined_psi(n: int) -> dict[str, float]:
    import private_set_intersection.python as peer

    ours, theirs = list(written(n, 0)), list(written(n, n // 2))
    before, began = peak(), clock()
    client, server = peer.client.CreateWithNewKey(True), peer.server.CreateWithNewKey(True)
    setup = server.CreateSetupMessage(0.0, len(ours), theirs, peer.DataStructure.RAW)
    response = server.ProcessRequest(client.CreateRequest(ours))
    matched = len(client.GetIntersection(setup, response))
    return result(began, before, matched)


def spu_psi(python: str, n: int) -> dict[str, float]:
    command = [python, str(Path(__file__).with_name("psi_spu.py")), str(n)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def result(began: tuple[float, float], before: float, matched: int) -> dict[str, float]:
    wall, processor = (now - then for now, then in zip(clock(), began, strict=True))
    return {"seconds": wall, "processor": processor, "megabytes": peak() - before, "matched": matched}


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(work: Callable[[int], dict[str, float]], n: int) -> dict[str, float]:
    """The result of `work(n)` in a process of its own."""

    def run(end: Connection) -> None:
        end.send(work(n))

    mine, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run, args=(other,))
    process.start()
    other.close()
    try:
        found: dict[str, float] = mine.recv()
    finally:
        process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--large", action="store_true", help="a million ids a side too, fednb only, once")
    parser.add_argument("--spu", metavar="PYTHON", help="an interpreter that has the package spu")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sides: dict[str, Callable[[int], dict[str, float]]] = {"fednb": fednb_psi}
    try:
        import private_set_intersection.python  # noqa: F401

        sides["openmined-psi"] = openmined_psi
    except ImportError:
        print("openmined-psi is not installed here; fednb is measured alone")
    if options.spu:
        sides["spu"] = partial(spu_psi, options.spu)
    print(describe())
    report: dict[str, Any] = {}
    for n in options.sizes:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, work in sides.items():
                found[name].append(apart(work, n))
        if {result["matched"] for results in found.values() for result in results} != {n - n // 2}:
            raise SystemExit(f"wrong matches: {found}")
        report[str(n)] = {name: summary(results) for name, results in found.items()}
        for peer in list(found)[1:]:
            for kind in ("seconds", "processor"):
                ratios = [b[kind] / a[kind] for a, b in zip(found["fednb"], found[peer], strict=True)]
                report[str(n)][peer][f"{kind}, of ours"] = round(statistics.median(ratios), 2)
        show(n, report[str(n)])
    if options.large:
        n = 1_000_000
        report[str(n)] = {"fednb": summary([apart(fednb_psi, n)])}
        show(n, report[str(n)])
    n = max(map(int, report))
    against = apart(unbalanced, n)
    report["1,000 against the largest"] = {name: round(value, 3) for name, value in against.items()}
    print(
        f"    1,000 × {n:<9,} plainly {against['plain']:.2f} s; prepared once in {against['prepare']:.2f} s, then "
        f"{against['prepared']:.3f} s"
    )
    if spu_engine.installed():
        both = [apart(by_spu, n) for _ in range(options.rounds)]
        ratio = statistics.median(each["ecdh"] / each["spu"] for each in both)
        by = {name: statistics.median(each[name] for each in both) for name in both[0]}
        report["by spu"] = {name: round(value, 3) for name, value in by.items()} | {"ratio": round(ratio, 2)}
        print(f"{n:>9,} × {n:<9,} by spu {by['spu']:.2f} s, {ratio:.1f} times as fast as by curve ({by['ecdh']:.2f} s)")
    print(json.dumps(report))


def summary(results: list[dict[str, float]]) -> dict[str, float]:
    return {
        name: round(statistics.median(r[name] for r in results), 3) for name in ("seconds", "processor", "megabytes")
    }


def show(n: int, found: Mapping[str, Mapping[str, float]]) -> None:
    for name, result in found.items():
        line = f"{n:>9,} × {n:<9,} {name:14} {result['seconds']:7.2f} s, {result['processor']:7.2f} s of processor"
        line += f", {result['megabytes']:5.0f} MB more at peak"
        if name != "fednb":
            line += f"; {result['seconds, of ours']:.1f} times fednb's seconds, "
            line += f"{result['processor, of ours']:.1f} times its processor seconds"
        print(line)


if __name__ == "__main__":
    main()
