"""The one federation that a notebook is connected to, and who its cells can be sent to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from fednb.errors import LinkError, NotConnected
from fednb.federation.cells import CellClient
from fednb.federation.client import Federation
from fednb.notebook.palette import Look, looks


class Session:
    """What the magics, completion and displays of one notebook share."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self._federation: Federation | None = None
        self._cells: CellClient | None = None

    @property
    def connected(self) -> bool:
        return self._federation is not None

    @property
    def federation(self) -> Federation:
        """Raises NotConnected."""
        if self._federation is None:
            raise NotConnected(
                "this notebook is not connected to a federation. Run `%fed connect` (the last `fednb up` on this "
                "machine) or `%fed connect FILE`."
            )
        return self._federation

    @property
    def cells(self) -> CellClient:
        """Raises NotConnected."""
        if self._cells is None:
            self._cells = CellClient(self.federation.endpoint)
        return self._cells

    def use(self, federation: Federation) -> None:
        """Send cells through `federation` from now on; an earlier connection is closed."""
        self.close()
        self._federation = federation

    def close(self) -> None:
        """Disconnect. Idempotent."""
        federation, self._federation = self._federation, None
        cells, self._cells = self._cells, None
        if cells is not None:
            cells.close()
        if federation is not None:
            federation.close()

    def members(self) -> tuple[str, ...]:
        """Who has a kernel: the parties, then the coordinator."""
        return (*self.federation.parties, self.federation.coordinator)

    def looks(self) -> Mapping[str, Look]:
        """How each member is drawn, the same in every output of this notebook."""
        return looks(self.federation.parties, self.federation.coordinator)

    def parties(self, words: Sequence[str]) -> list[str]:
        """The parties that a magic's line names: "bank", "bank,agency", "bank agency" or "all".

        Raises LinkError that names the known ones.
        """
        known = self.federation.parties
        names = [name for word in words for name in word.split(",") if name]
        if names == ["all"]:
            return list(known)
        for name in names:
            if name == self.federation.coordinator:
                raise LinkError(f"{name} is the coordinator: start its cells with %%coordinator.", member=name)
            if name not in known:
                raise LinkError(
                    f"there is no party {name!r} in this federation; its parties are {', '.join(known)}.", member=name
                )
        return list(dict.fromkeys(names))

    def show_view(self, view: Mapping[str, Any]) -> None:
        """Build the widget for a fednb view. Raises FednbError or ValueError when it cannot be decoded."""
        from fednb.notebook.widgets import show

        show(view, self._federation)
