"""What a member's owner lets analysts do: run cells next to the data, or only protocols.

Closed unless it was opened: a policy that nobody set allows protocols and no cells.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Protocol

from fednb.config import MODES, OnlineConfig, PermitConfig
from fednb.errors import Refused


class Invitation(Protocol):
    """What of an invitation to a run a policy looks at."""

    @property
    def coordinator_at(self) -> str:
        """The party whose organisation runs the coordinator, as the coordinator says; "": apart from all."""
        ...


class MemberPolicy:
    """The mode of one member, what of its own it releases, and with whom the secret key may lie.

    Safe from any thread.
    """

    def __init__(
        self,
        member: str,
        mode: str = "protocol-only",
        release: Iterable[str] = (),
        accept_coordinator_at: Iterable[str] = (),
        analysts: Mapping[str, PermitConfig] | None = None,
        *,
        approval: bool = False,
        online: Mapping[str, OnlineConfig] | None = None,
    ) -> None:
        """`analysts` says who may do what; None: the federation file leaves it open to all (on one machine only).

        approval : cells may be asked for, and run when the owner has approved them.
        """
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}")
        self.member = member
        self._mode = mode
        self._release = frozenset(release)
        self._accepted = frozenset(accept_coordinator_at)
        self._analysts = analysts
        self._approval = approval
        self._online = online or {}
        self._locked = threading.Event()

    @property
    def mode(self) -> str:
        """ "open", "guarded" or "protocol-only", as it is now."""
        return "protocol-only" if self._locked.is_set() else self._mode

    @property
    def approves(self) -> bool:
        """Whether the owner may be asked for cells, now."""
        return self._approval and not self._locked.is_set()

    def lock(self) -> None:
        """Protocols only, from now until the owner starts this member again."""
        self._locked.set()

    def check_cells(self) -> None:
        """Raises Refused unless analysts may run cells here."""
        if self.mode in ("open", "guarded"):
            return
        why = "was locked by fed.lock()" if self._locked.is_set() else 'is in mode "protocol-only"'
        raise Refused(
            f"{self.member} {why}: it runs no cells, only protocols. Allowed are alignments and models, "
            "started with fed.align(...) and fit(...) in a %%coordinator cell or a script.",
            member=self.member,
            rule="mode",
        )

    def check_run(self, join: Invitation) -> None:
        """Every protocol that the owner installed may run, under a coordinator in a place that the owner accepts.

        Which data a run may use, the protocol itself checks. Raises Refused.
        """
        home = join.coordinator_at
        if home and home != self.member and home not in self._accepted:
            raise Refused(
                f"{self.member} takes part in no run of a coordinator inside {home}'s organisation: with the secret "
                f"key, {home} could read what {self.member} sends it encrypted, its scores or its labels. Have the "
                "coordinator run by an organisation that is no party.",
                member=self.member,
                rule="coordinator apart",
            )

    def check_analyst(self, analyst: str, protocol: str, table: str, partners: Iterable[str]) -> None:
        """Whether `analyst` may run `protocol` on `table` ("": on none) together with `partners`. Raises Refused."""
        permit = self._permit(analyst)
        if permit is None:
            return
        asked = [("protocols", protocol), *([("tables", table)] if table else []), *(("partners", p) for p in partners)]
        for what, name in asked:
            allowed: tuple[str, ...] = getattr(permit, what)
            if name not in allowed and "*" not in allowed:
                words = {"protocols": "the protocol", "tables": "the table", "partners": "runs together with"}[what]
                listed = f"allowed are {', '.join(allowed)}" if allowed else "none is allowed"
                raise Refused(
                    f"{self.member} does not let {analyst} use {words} {name}; {listed}. The rest its owner "
                    f"decides, under [party.{self.member}.analysts.{analyst}].",
                    member=self.member,
                    rule=f"analysts.{what}",
                )

    def online(self, asker: str, model: str, reasons: int) -> str:
        """The table in which applicants of `asker`'s online service are looked up, for this model. Raises Refused.

        Without a section of the owner's for that party there is none: also where analysts may do everything.
        """
        permit = self._online.get(asker)
        at = f"[party.{self.member}.online.{asker}]"
        if permit is None:
            raise self._not_online(f"scores no applicants one by one for {asker}; its owner would say so in {at}.", "")
        if model not in permit.models and "*" not in permit.models:
            raise self._not_online(
                f"does not score with the model {model} online for {asker}; which ones, its owner says in {at}.",
                ".models",
            )
        if reasons > permit.reasons:
            raise self._not_online(f"names {permit.reasons} reasons of an applicant, and not {reasons}.", ".reasons")
        return permit.table

    def _not_online(self, text: str, rule: str) -> Refused:
        return Refused(f"{self.member} {text}", member=self.member, rule=f"online{rule}")

    def check_cells_of(self, analyst: str) -> None:
        """Raises Refused unless this member runs cells, and those of `analyst` too."""
        self.check_cells()
        permit = self._permit(analyst)
        if permit is not None and not permit.cells:
            raise Refused(
                f"{self.member} runs no cells of {analyst}; whose it runs, its owner decides.",
                member=self.member,
                rule="analysts.cells",
            )

    def check_asks_of(self, analyst: str) -> None:
        """Raises Refused unless `analyst` may ask the owner here to approve a cell."""
        permit = self._permit(analyst)
        if not self._approval or self._locked.is_set() or (permit is not None and not permit.cells):
            why = f"runs no cells of {analyst}" if self._approval else "has nobody who approves cells"
            why = "was locked by fed.lock()" if self._locked.is_set() else why
            raise Refused(f"{self.member} {why}; what it runs, its owner decides.", member=self.member, rule="approval")

    def _permit(self, analyst: str) -> PermitConfig | None:
        """None: everything. An analyst that is not named may do nothing."""
        return None if self._analysts is None else self._analysts.get(analyst, PermitConfig())

    def check_table(self, analyst: str, table: str) -> None:
        """Whether cells of `analyst` may ask about a table, by the name of one that was declared. Raises Refused."""
        permit = self._permit(analyst)
        if permit is not None and table not in permit.tables and "*" not in permit.tables:
            raise Refused(
                f"{self.member} does not let {analyst} use the table {table}; the rest its owner decides.",
                member=self.member,
                rule="analysts.tables",
            )

    def most_models(self, features: int) -> int | None:
        """How many different models of so many features of this member's may score a row.

        Each gives whoever gets the score one equation in the row's features: fewer than there are unknown.
        """
        return max(1, features - 1)

    def releases(self, what: str) -> bool:
        """Whether `what` ("coefficients") of this member's own may be shown to the analyst."""
        return what in self._release
