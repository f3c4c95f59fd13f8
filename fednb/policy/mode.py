"""What a member's owner lets analysts do: run cells next to the data, or only protocols.

Closed unless it was opened: a policy that nobody set allows protocols and no cells.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from fednb.errors import Refused


class MemberPolicy:
    """The mode of one member and what of its own it releases. Safe from any thread."""

    def __init__(self, member: str, mode: str = "protocol-only", release: Iterable[str] = ()) -> None:
        if mode not in ("open", "protocol-only"):
            raise ValueError(f"unknown mode {mode!r}")
        self.member = member
        self._mode = mode
        self._release = frozenset(release)
        self._locked = threading.Event()

    @property
    def mode(self) -> str:
        """ "open" or "protocol-only", as it is now."""
        return "protocol-only" if self._locked.is_set() else self._mode

    def lock(self) -> None:
        """Protocols only, from now until the owner starts this member again."""
        self._locked.set()

    def check_cells(self) -> None:
        """Raises Refused unless analysts may run cells here."""
        if self.mode == "open":
            return
        why = "was locked by fed.lock()" if self._locked.is_set() else 'is in mode "protocol-only"'
        raise Refused(
            f"{self.member} {why}: it runs no cells, only protocols. Allowed are alignments and models, "
            "started with fed.align(...) and fit(...) in a %%coordinator cell or a script.",
            member=self.member,
            rule="mode",
        )

    def check_run(self, join: object) -> None:
        """Every protocol that the owner installed may run; which data it may use, the protocol itself checks."""

    def releases(self, what: str) -> bool:
        """Whether `what` ("coefficients") of this member's own may be shown to the analyst."""
        return what in self._release
