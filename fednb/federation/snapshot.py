"""The tables that an approved cell may read, as files in its sandbox: it has no agent to ask for more.

The agent writes them, one Arrow file a table, and shows the folder to the kernel, which cannot change it. There `fed`
has `tables` and `load` as in any party's kernel, and nothing that would reach further.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fednb.errors import DataError
from fednb.federation.arrow import from_arrow, to_arrow
from fednb.federation.messages import Name
from fednb.typed import known

if TYPE_CHECKING:
    import pandas as pd
    from IPython.core.interactiveshell import InteractiveShell

FOLDER = "FEDNB_SNAPSHOT"  # the environment variable that names it
MEMBER = "FEDNB_MEMBER"


def write(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Make the folder, with one file a table."""
    folder.mkdir(mode=0o700)
    for name, frame in tables.items():
        path = folder / f"{msgspec.convert(name, known(Name))}.arrow"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
            to_arrow(frame, f"table {name!r}").tofile(file)


class SnapshotFed:
    """`fed` in an approved cell."""

    def __init__(self, folder: Path, member: str) -> None:
        self._folder = folder
        self._member = member

    def __repr__(self) -> str:
        return f"fed at {self._member}, in an approved cell: fed.tables(), fed.load(name)"

    def tables(self) -> list[str]:
        """The tables that were approved."""
        return sorted(path.stem for path in self._folder.glob("*.arrow"))

    def load(self, name: str) -> pd.DataFrame:
        """One of them. Raises DataError for any other."""
        if name not in self.tables():
            listed = ", ".join(self.tables()) or "none"
            raise DataError(
                f"this cell was approved for the tables {listed}, and not for {name!r}. A cell reads the tables that "
                'its text names, as in fed.load("loans").'
            )
        return from_arrow(np.fromfile(self._folder / f"{name}.arrow", dtype=np.uint8), f"table {name!r}")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython when the kernel of an approved cell starts."""
    fed = SnapshotFed(Path(os.environ[FOLDER]), os.environ[MEMBER])
    shell.push({"fed": fed}, interactive=False)  # type: ignore[no-untyped-call]
