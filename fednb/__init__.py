"""fednb: notebooks whose cells run where the data lives, and models trained without anybody showing a row.

    federation = fednb.connect()                                  # a running federation
    federation = fednb.simulate({"bank": {"loans": loans}, ...})  # the same roles in one process

    frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
    train, test = frame.split(test_size=0.3, random_state=0)
    model = fednb.models.VerticalLogisticRegression().fit(train, y="bank.default")

Names are looked up on first use, so that `import fednb` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fednb.errors import (
    ClusterError,
    ConfigError,
    CryptoError,
    DataError,
    FednbError,
    LinkError,
    LinkTimeout,
    NotConnected,
    PeerLost,
    QuotaExceeded,
    Refused,
    RemoteError,
    RunCancelled,
    RunFailed,
    SealBroken,
    UnexpectedMessage,
    VersionMismatch,
)
from fednb.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from fednb import models
    from fednb.federation.client import Federation
    from fednb.federation.connect import connect
    from fednb.federation.frame import VerticalFrame
    from fednb.federation.simulate import simulate

__all__ = [
    "ClusterError",
    "ConfigError",
    "CryptoError",
    "DataError",
    "Federation",
    "FednbError",
    "LinkError",
    "LinkTimeout",
    "NotConnected",
    "PeerLost",
    "QuotaExceeded",
    "Refused",
    "RemoteError",
    "RunCancelled",
    "RunFailed",
    "SealBroken",
    "UnexpectedMessage",
    "VersionMismatch",
    "VerticalFrame",
    "__version__",
    "connect",
    "models",
    "simulate",
]

_HOMES = {
    "Federation": "fednb.federation.client",
    "VerticalFrame": "fednb.federation.frame",
    "connect": "fednb.federation.connect",
    "simulate": "fednb.federation.simulate",
}


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("fednb.models")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fednb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext fednb`: the magics, completion and widgets."""
    from fednb.notebook import load

    load(shell)
