"""Comms that hear the front end while a cell runs."""

from __future__ import annotations

from typing import Any


def hear_while_busy(comm: Any) -> None:
    """Let messages in by the front end's own subshell, while a cell occupies the main one.

    ipykernel from 7.4 on answers a comm where it was last written to, which for us is the cell's busy loop: a button
    would be heard when the cell is over. Older ones, and front ends without subshells, leave the interrupt button.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, sender: sender
