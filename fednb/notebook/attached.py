"""A notebook whose every cell runs in one party's kernel: for owners who work on their own party.

An IPython extension: `--ext=fednb.notebook.attached`. The party is $FEDNB_PARTY ("bank", or "coordinator"), the
federation that of $FEDNB_PROFILE or of the last `fednb up`; it is connected at the first cell. Cells that begin
with one of our own magics are left alone, so `%fed status` and `%%party agency` work here too.
"""

from __future__ import annotations

import os

from IPython.core.interactiveshell import InteractiveShell

from fednb.notebook import load
from fednb.notebook.session import Session

PARTY = "FEDNB_PARTY"
PROFILE = "FEDNB_PROFILE"


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython."""
    from fednb.federation.connect import connect

    session = load(shell)
    party, profile = os.environ.get(PARTY, "").strip(), os.environ.get(PROFILE) or None
    attach(session, party)
    session.connector = lambda: connect(profile)


def attach(session: Session, party: str) -> None:
    """From now on, send every cell of this notebook to `party`: a party's name, or the coordinator's."""
    session.attached = party

    def transform(lines: list[str]) -> list[str]:
        return [session.head(), *lines] if session.takes("".join(lines)) else lines

    session.shell.input_transformers_cleanup.append(transform)
