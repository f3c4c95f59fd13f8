"""How long `fednb up` takes until every member serves, and until the first cell has run.

The federation has a hub, a coordinator and two parties with a table each. The yardstick in the same run is what
four Python processes cost that only import what every member needs (numpy and pyzmq), started side by side.

    python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fednb.federation import launch
from fednb.federation.cells import CellClient
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome

AIM = 5.0  # seconds to ready

FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
mode = "open"
[party.bank.tables.loans]
path = "loans.csv"
id = "id"
[party.agency]
mode = "open"
[party.agency.tables.invoices]
path = "invoices.csv"
id = "id"
"""


def bare() -> float:
    """Seconds for four bare processes."""
    began = time.monotonic()
    processes = [subprocess.Popen([sys.executable, "-c", "import numpy, zmq"]) for _ in range(4)]
    for process in processes:
        process.wait()
    return time.monotonic() - began


def federation(folder: Path) -> tuple[float, float]:
    """Seconds to ready, and from there to the end of a first cell at a party."""
    began = time.monotonic()
    with launch.up(folder / "federation.toml") as running:
        ready = time.monotonic() - began
        with DealerEndpoint(MemberHome.load(running.home)) as endpoint:
            cells = CellClient(endpoint)
            list(cells.execute(["bank"], "fed.load('loans').shape"))
            first = time.monotonic() - began - ready
            cells.close()
    return ready, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = name
        for table in ("loans", "invoices"):
            rows = "".join(f"{i},{i * 0.5},{i % 7}\n" for i in range(30_000))
            (folder / f"{table}.csv").write_text("id,a,b\n" + rows)
        (folder / "federation.toml").write_text(FILE)
        yardstick = [bare() for _ in range(repeats)]
        measured = [federation(folder) for _ in range(repeats)]
    base = statistics.median(yardstick)
    ready = statistics.median(seconds for seconds, _ in measured)
    first = statistics.median(seconds for _, seconds in measured)
    print(f"four bare processes (import numpy, zmq)   {base:6.2f} s")
    print(f"fednb up to ready, 4 members              {ready:6.2f} s   ratio {ready / base:4.1f}   aim {AIM:g} s")
    print(f"  and to the end of a first cell          {first:6.2f} s more")


if __name__ == "__main__":
    main()
