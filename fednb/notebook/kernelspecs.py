"""Puts the kernelspecs of `kernels/` where Jupyter looks for them: `fednb kernels install`.

A plain install brings them along as data files; an editable one leaves data files out, and a Jupyter that runs from
another environment looks elsewhere. Installing them names this Python in them, so that either finds fednb.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_data_dir

from fednb.errors import ConfigError
from fednb.notebook.lab.owner import OWNS
from fednb.wire.keys import MemberHome

ANALYST, PARTY, OWNER = "fednb", "fednb-party", "fednb-owner"


def install(
    *,
    user: bool = False,
    prefix: str | None = None,
    party: str = "",
    profile: str = "",
    owner: Path | None = None,
) -> list[Path]:
    """Install both kernelspecs; returns their folders.

    Into `prefix`, or the `user`'s own Jupyter folder; by default into this Python's prefix when it is a virtual
    environment, and else the user's. With `party`, one more that opens on that party's kernel (a party's name, or
    the coordinator's) in the federation of `profile`. With `owner`, the home of a member, one more with that member's
    inbox in the sidebar. Raises ConfigError.
    """
    user, prefix = _where(user, prefix)
    installed = [_install(name, _spec(name), user, prefix) for name in (ANALYST, PARTY)]
    if party:
        spec = _spec(PARTY)
        config = {"party": party} | ({"profile": str(Path(profile).absolute())} if profile else {})
        spec["display_name"] = f"fednb ({party})"
        spec["metadata"]["kernel_provisioner"]["config"] = config
        installed.append(_install(f"{PARTY}-{_lowered(party)}", spec, user, prefix))
    if owner is not None:
        home = MemberHome.load(owner.absolute())
        spec = _spec(ANALYST)
        spec["display_name"] = f"fednb (owner of {home.name})"
        spec["env"] = {OWNS: str(home.folder)}
        installed.append(_install(f"{OWNER}-{_lowered(home.name)}", spec, user, prefix))
    return installed


def _lowered(name: str) -> str:
    """A kernelspec's name allows less than a member's."""
    return re.sub("[^a-z0-9._-]", "-", name.lower())


def remove(*, user: bool = False, prefix: str | None = None) -> list[Path]:
    """Take away what `install` has put there, every party's too; returns the folders that are gone."""
    user, prefix = _where(user, prefix)
    place = Path(jupyter_data_dir()) if prefix is None else Path(prefix) / "share" / "jupyter"
    gone = []
    for found in sorted((place / "kernels").glob(f"{ANALYST}*")):
        if found.name in (ANALYST, PARTY) or found.name.startswith((f"{PARTY}-", f"{OWNER}-")):
            try:
                shutil.rmtree(found)
            except OSError as error:
                raise ConfigError(f"the kernelspec {found.name} cannot be removed: {error}.") from None
            gone.append(found)
    return gone


def _where(user: bool, prefix: str | None) -> tuple[bool, str | None]:
    """A virtual environment's own prefix by default, and else the user's folder."""
    if prefix is None and not user:
        user = sys.prefix == sys.base_prefix
        prefix = None if user else sys.prefix
    return user, prefix


def folder(name: str) -> Path:
    """The kernelspec that comes with fednb, in the checkout or where the installed package keeps it."""
    places = [
        Path(__file__).parents[2] / "kernels" / name,
        Path(sys.prefix) / "share" / "jupyter" / "kernels" / name,
    ]
    for place in places:
        if (place / "kernel.json").is_file():
            return place
    raise ConfigError(f"the kernelspec {name} is in none of {', '.join(map(str, places))}; install fednb again.")


def _spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((folder(name) / "kernel.json").read_text(encoding="utf-8"))
    spec["argv"][0] = sys.executable
    return spec


def _install(name: str, spec: dict[str, Any], user: bool, prefix: str | None) -> Path:
    # copied first: what is installed may be the very folder that is read
    with tempfile.TemporaryDirectory(prefix="fednb-") as scratch:
        copy = Path(scratch) / name
        shutil.copytree(folder(ANALYST if name == ANALYST else PARTY), copy)
        (copy / "kernel.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
        try:
            to = KernelSpecManager().install_kernel_spec(os.fspath(copy), name, user=user, prefix=prefix)
        except OSError as error:
            raise ConfigError(f"the kernelspec {name} cannot be installed: {error}. Use --user or --prefix.") from None
    return Path(to)
