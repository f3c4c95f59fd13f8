"""Whether the audit log in a member's home is whole, as its owner checks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fednb.errors import ConfigError
from fednb.policy import audit
from fednb.policy.audit import Head, Verdict
from fednb.wire.keys import MemberHome
from fednb.wire.rotation import former


@dataclass(frozen=True)
class Checked:
    """A log, and what is right and wrong with it."""

    folder: Path
    verdict: Verdict
    left_out: int  # heads in others' files that this member did not sign

    def words(self) -> list[str]:
        """What was checked, a line each; problems aside."""
        found = self.verdict
        erased = f", {found.erased} texts erased" if found.erased else ""
        lines = [f"{found.entries} entries, head {found.head[:16]}, {found.witnessed} witnessed heads agree{erased}"]
        if found.torn:
            lines.append(
                f"the last line is torn ({found.torn} bytes): its writer was killed; the next start puts it aside"
            )
        if self.left_out:
            lines.append(f"{self.left_out} heads were left out: the member did not sign them")
        return lines


Log = Literal["audit", "scores"]  # of cells and runs, or of what an online service answered


def folder(home: MemberHome, log: Log = "audit") -> Path:
    """Where the log lies. Raises ConfigError when there is none yet."""
    found = home.folder / log
    if not (found / "log.jsonl").exists() and not (found / "head").exists():
        what, begins = (
            ("audit log", f"{home.name} first starts")
            if log == "audit"
            else ("log of scores", "`fednb serve` gives its first one")
        )
        raise ConfigError(f"{home.folder} holds no {what}; it begins when {begins}.")
    return found


def check(home: MemberHome, witnesses: Iterable[Path] = (), log: Log = "audit") -> Checked:
    """Read the whole log. `witnesses`: other members' `witnessed.jsonl`, of which heads that were signed here count.

    Raises ConfigError when there is no log, or a file is damaged.
    """
    found = folder(home, log)
    heads = [head for file in witnesses for head in audit.witnessed(file) if head.member == home.name]
    signed = [head for head in heads if _signed(home, head)]
    return Checked(found, audit.verify(found, home.name, signed), len(heads) - len(signed))


def _signed(home: MemberHome, head: Head) -> bool:
    try:
        signature = bytes.fromhex(head.signature)
        return any(keys.verifies(signature, head.signed) for keys in (home.roster[home.name], *former(home)))
    except ValueError:
        return False
