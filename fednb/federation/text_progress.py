"""Progress bars of tqdm as text, in a kernel whose widgets cannot travel.

`tqdm.auto` and `tqdm.notebook` draw ipywidgets in a kernel. A member's kernel has no comms to the analyst's browser
(they would be a way out), so such a bar would stand still where it began. Here both draw tqdm's own line of text,
which travels as any printed text does and moves.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAME = "tqdm.notebook"


class _TextBars(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives `tqdm.notebook` the bars of `tqdm.std`, under its own names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == _NAME else None

    def exec_module(self, module: ModuleType) -> None:
        std = importlib.import_module("tqdm.std")
        names = {"tqdm": std.tqdm, "trange": std.trange, "tqdm_notebook": std.tqdm, "tnrange": std.trange}
        vars(module).update(names, __all__=list(names), IProgress=std.tqdm, WARN_NOIPYW="")


def install() -> None:
    """From now on, in this process. Costs nothing where tqdm is never imported."""
    if not any(isinstance(finder, _TextBars) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TextBars())
