"""Runs inside a test's notebook kernel: a federation over loopback whose members have real kernels."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from IPython.core.getipython import get_ipython

from fednb import notebook
from fednb.federation.client import Federation
from fednb.federation.kernel_host import KernelHost
from fednb.notebook.session import Session
from fednb.policy.mode import MemberPolicy
from fednb.wire.loopback import Network

MODES = {"bank": "open", "agency": "open", "coordinator": "open", "vault": "protocol-only"}


def start() -> Session:
    """Connect this notebook; everything ends with its kernel."""
    folder = Path(tempfile.mkdtemp(prefix="fednb-"))
    kinds = {name: "coordinator" if name == "coordinator" else "party" for name in MODES}
    network = Network({**kinds, "analyst": "analyst"})
    hosts = []
    for number, (name, mode) in enumerate(MODES.items()):
        host = KernelHost(
            network.endpoint(name),
            MemberPolicy(name, mode),
            run_folder=folder / str(number),
            work_folder=folder / f"{name}-work",
        )
        host.prewarm()
        hosts.append(host)

    def stop() -> None:
        for host in hosts:
            host.close()
        shutil.rmtree(folder)

    atexit.register(stop)
    session = notebook.load(get_ipython())  # type: ignore[no-untyped-call]
    session.use(Federation(network.endpoint("analyst#1"), "coordinator"))
    return session
