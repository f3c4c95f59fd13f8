"""Puts the extension of `extensions/lab` where JupyterLab and Notebook look for it: `fednb kernels install`.

A plain install brings it along as data files; an editable one leaves data files out.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir

from fednb.errors import ConfigError

NAME = "fednb-lab"
WIDGET = ("training.js", "training.css")  # the run's widget, which the extension shows in a panel too
HERE = "here.js"  # says how a terminal runs the command


def install(*, user: bool = False, prefix: str | None = None) -> Path:
    """Install it, or renew what is installed; returns its folder. Places as for the kernelspecs."""
    to = place(user=user, prefix=prefix)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        # copied beside it first: what is installed may be the very folder that is read
        with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=to.parent) as scratch:
            copy = Path(scratch) / NAME
            shutil.copytree(folder(), copy)
            for name in WIDGET:
                if not (copy / "static" / name).exists():
                    shutil.copy(Path(__file__).parent / "widgets" / name, copy / "static" / name)
            command = shlex.join([sys.executable, "-m", "fednb.cli"])  # wherever a terminal's PATH leads
            (copy / "static" / HERE).write_text(f"export const FEDNB = {json.dumps(command)};\n", encoding="utf-8")
            if to.exists():
                shutil.rmtree(to)
            copy.rename(to)
    except OSError as error:
        raise ConfigError(f"the JupyterLab extension cannot be installed: {error}. Use --user or --prefix.") from None
    return to


def remove(*, user: bool = False, prefix: str | None = None) -> list[Path]:
    """Take it away; returns the folder that is gone, or nothing."""
    at = place(user=user, prefix=prefix)
    if not at.exists():
        return []
    try:
        shutil.rmtree(at)
    except OSError as error:
        raise ConfigError(f"the JupyterLab extension cannot be removed: {error}.") from None
    return [at]


def place(*, user: bool = False, prefix: str | None = None) -> Path:
    """Where it lies when installed."""
    if prefix is None and not user and sys.prefix != sys.base_prefix:
        prefix = sys.prefix
    data = Path(jupyter_data_dir()) if prefix is None else Path(prefix) / "share" / "jupyter"
    return data / "labextensions" / NAME


def folder() -> Path:
    """The extension that comes with fednb, in the checkout or where the installed package keeps it."""
    places = [
        Path(__file__).parents[2] / "extensions" / "lab",
        Path(sys.prefix) / "share" / "jupyter" / "labextensions" / NAME,
    ]
    for found in places:
        if (found / "package.json").is_file():
            return found
    raise ConfigError(f"the JupyterLab extension is in none of {', '.join(map(str, places))}; install fednb again.")
