"""A notebook with fednb loaded, which connects at the first cell that needs a federation.

An IPython extension: `--ext=fednb.notebook.connected`. The federation is that of $FEDNB_PROFILE, or of the last
`fednb up`; `%fed connect FILE` changes to another.
"""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

from fednb.federation.connect import connect
from fednb.notebook import load


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython."""
    load(shell).connector = connect
