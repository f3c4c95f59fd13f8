"""What users may rely on."""

from __future__ import annotations

import subprocess
import sys

import fednb
from fednb import errors


def test_public_names_are_these() -> None:
    assert set(fednb.__all__) == {
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
    }


def test_every_public_name_can_be_had() -> None:
    assert {name: getattr(fednb, name) is not None for name in fednb.__all__} == dict.fromkeys(fednb.__all__, True)


def test_every_error_of_the_tree_is_public() -> None:
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}

    assert tree <= set(fednb.__all__)
    assert all(issubclass(getattr(fednb, name), fednb.FednbError) for name in tree)


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import fednb, sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"numpy", "pandas", "zmq", "sklearn", "IPython", "msgspec"} & set(loaded)
