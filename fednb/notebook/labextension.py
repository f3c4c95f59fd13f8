"""Puts the extension of `extensions/lab` where JupyterLab and Notebook look for it: `fednb kernels install`.

A plain install brings it along as data files; an editable one leaves data files out.
"""

from __future__ import annotations

import hashlib
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
ENTRY = "remoteEntry.js"
HERE = "here.js"  # says how a terminal runs the command


def install(*, user: bool = False, prefix: str | None = None) -> Path:
    """Install it, or renew what is installed; returns its folder. Places as for the kernelspecs."""
    to = place(user=user, prefix=prefix)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        # copied beside it first: what is installed may be the very folder that is read
        with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=to.parent) as scratch:
            copy = Path(scratch) / NAME
            shutil.copytree(folder(), copy, ignore=shutil.ignore_patterns("static"))
            files = _modules()
            # Jupyter lets browsers keep these files for a year: other contents need another address
            named = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
            static = copy / "static" / named
            static.mkdir(parents=True)
            for name, text in files.items():
                (static / name).write_text(text, encoding="utf-8")
            package = json.loads((copy / "package.json").read_text(encoding="utf-8"))
            package["jupyterlab"]["_build"]["load"] = f"static/{named}/{ENTRY}"
            (copy / "package.json").write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")
            if to.exists():
                shutil.rmtree(to)
            copy.rename(to)
    except OSError as error:
        raise ConfigError(f"the JupyterLab extension cannot be installed: {error}. Use --user or --prefix.") from None
    return to


def _modules() -> dict[str, str]:
    """What the page loads: name -> text."""
    (entry,) = sorted((folder() / "static").rglob(ENTRY))
    found = {path.name: path.read_text(encoding="utf-8") for path in entry.parent.iterdir() if path.is_file()}
    for name in WIDGET:
        found[name] = (Path(__file__).parent / "widgets" / name).read_text(encoding="utf-8")
    command = shlex.join([sys.executable, "-m", "fednb.cli"])  # wherever a terminal's PATH leads
    return found | {HERE: f"export const FEDNB = {json.dumps(command)};\n"}


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
