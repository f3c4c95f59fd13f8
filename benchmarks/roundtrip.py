"""Round trip of `1+1` through %%party, beside a plain local ipykernel and ipyparallel's %px, in one run.

    python benchmarks/roundtrip.py [--rounds 200]

The way of %%party: this process, hub, the bank's agent, the bank's kernel, and back, as real processes on this
machine; that of the plain kernel: this process and the kernel. The three take turns, so that whatever else the
machine does falls on all of them. Aim: at most 1.5 times the plain kernel.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipyparallel
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from jupyter_client.manager import KernelManager
from traitlets.config import Config

import fednb
from fednb import notebook
from fednb.federation import launch

FEDERATION = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
mode = "protocol-only"
[party.bank]
mode = "open"
[party.bank.tables.loans]
path = "loans.csv"
id = "id"
[party.agency]
mode = "protocol-only"
[party.agency.tables.invoices]
path = "loans.csv"
id = "id"
"""


def plain_kernel(client: Any) -> Callable[[], None]:
    def call() -> None:
        request = client.execute("1+1")
        idle = replied = False
        while not idle:
            message = client.get_iopub_msg(timeout=30)
            idle = message["parent_header"].get("msg_id") == request and (
                message["content"].get("execution_state") == "idle"
            )
        while not replied:
            replied = client.get_shell_msg(timeout=30)["parent_header"].get("msg_id") == request

    return call


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, by way."""
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.display_pub = CapturingDisplayPublisher()
    folder = Path(tempfile.mkdtemp(prefix="fednb-roundtrip-"))
    (folder / "loans.csv").write_text("id,amount\na,1\nb,2\n")
    (folder / "federation.toml").write_text(FEDERATION)
    kernel = KernelManager(kernel_name="python3")
    kernel.start_kernel()
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    cluster = ipyparallel.Cluster(n=1, log_level=40)
    try:
        engines = cluster.start_and_connect_sync()
        view = engines[:]
        view.block = True
        view.activate()
        with launch.up(folder / "federation.toml") as running, fednb.connect(running) as federation:
            notebook.load(shell).use(federation)
            ways = {
                "local ipykernel": plain_kernel(client),
                "ipyparallel %px": lambda: shell.run_line_magic("px", "1+1"),
                "fednb %%party": lambda: shell.run_cell_magic("party", "bank", "1+1"),
            }
            taken: dict[str, list[float]] = {way: [] for way in ways}
            with capture_output():
                for number in range(rounds + 10):
                    for way, call in ways.items():
                        began = time.perf_counter()
                        call()
                        if number >= 10:  # the first ones pay for imports and connections
                            taken[way].append(time.perf_counter() - began)
        return taken
    finally:
        cluster.stop_cluster_sync()
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    taken = measure(parser.parse_args().rounds)
    medians = {way: statistics.median(seconds) for way, seconds in taken.items()}
    base = medians["local ipykernel"]
    print(f"{'1+1, there and back':<20} {'median ms':>10} {'90 % ms':>10} {'x local':>8}")
    for way, seconds in taken.items():
        ninety = statistics.quantiles(seconds, n=10)[-1]
        print(f"{way:<20} {1000 * medians[way]:>10.2f} {1000 * ninety:>10.2f} {medians[way] / base:>8.2f}")
    print(json.dumps({way: round(1000 * median, 3) for way, median in medians.items()}))


if __name__ == "__main__":
    main()
