"""Which federation is meant when nobody says: an analyst's home folder, found by path, by name, or the last one.

`fednb up` leaves a pointer where state belongs ($XDG_STATE_HOME/fednb, else ~/.local/state/fednb), so that a notebook
needs no path to reach the federation that runs on this machine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from fednb import config
from fednb.errors import ConfigError, NotConnected

HOMES = ".fednb"  # beside a federation file: the homes of its members


def find(profile: str | os.PathLike[str] | None = None) -> Path:
    """The home folder of the analyst to connect as.

    `profile` is a federation file, a member's home, the name of a federation that was started here, or None:
    $FEDNB_PROFILE, else the last `fednb up`. Raises NotConnected when there is none, ConfigError for a wrong one.
    """
    if profile is None:
        profile = os.environ.get("FEDNB_PROFILE") or None
    if profile is None:
        return _pointed_at(
            _state() / "last",
            "no federation was started on this machine. Start one with `fednb up FILE.toml`, or say which: "
            "fednb.connect(PATH) or $FEDNB_PROFILE.",
        )
    path = Path(profile).expanduser()
    if (path / "identity.json").is_file():
        return path
    if path.is_file():
        federation = config.load(path)
        return _home(path.absolute().parent / HOMES / federation.analysts[0], f"start it with `fednb up {path}`.")
    name = os.fspath(profile)
    if re.fullmatch(r"[\w.-]+", name) and (_state() / "names" / name).is_file():
        return _pointed_at(_state() / "names" / name, "")
    if path.is_dir():
        raise ConfigError(f"{path} is not a member's home: it holds no identity.json.")
    raise ConfigError(
        f"{name!r} is neither a federation file, nor a member's home, nor the name of a federation that was started "
        "on this machine."
    )


def remember(federation: str, home: Path) -> None:
    """Make `home` what `find()` and `find(federation)` give."""
    for pointer in (_state() / "last", _state() / "names" / federation):
        if pointer.name != "last" and not re.fullmatch(r"[\w.-]+", federation):
            continue
        pointer.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = pointer.with_name(f".{pointer.name}.{os.getpid()}")
        draft.write_text(f"{home.absolute()}\n", encoding="utf-8")
        draft.replace(pointer)


def _state() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "fednb"


def _pointed_at(pointer: Path, otherwise: str) -> Path:
    try:
        home = Path(pointer.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        raise NotConnected(otherwise) from None
    return _home(home, "start it again with `fednb up FILE.toml`.")


def _home(home: Path, advice: str) -> Path:
    if not (home / "identity.json").is_file():
        raise NotConnected(f"the federation whose analyst lives in {home} is not there; {advice}")
    return home
