"""Everything fednb raises on purpose, in one tree.

    FednbError
    ├── ConfigError            a federation file or a member's folder is wrong          (ValueError)
    ├── DataError              a table, column, id or label cannot be used              (ValueError)
    ├── CryptoError            a key, ciphertext or fixed-point value is out of bounds  (ValueError)
    ├── ClusterError           the Dask cluster that does a party's heavy work failed
    ├── NotConnected           this notebook or script has no federation
    ├── Refused                a member's policy said no: `member`, `rule`
    │   └── QuotaExceeded      the coordinator would decrypt more than its quota allows
    ├── LinkError              something went wrong between two members: `member`
    │   ├── PeerLost           a member went away or left the run, with the cause
    │   ├── LinkTimeout        nothing came in time                                     (TimeoutError)
    │   ├── UnexpectedMessage  a peer sent something else than the protocol says
    │   ├── SealBroken         an envelope was forged, replayed or not meant for us
    │   └── VersionMismatch    two members speak different versions
    ├── RunFailed              a run ended without a result: `run`, `member`
    │   └── RunCancelled       somebody asked it to stop
    └── RemoteError            a cell failed at a party: `errors`, with the remote type and traceback

A message says what happened, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fednb.text import plain


class FednbError(Exception):
    """Base of all errors that fednb raises on purpose."""


class ConfigError(FednbError, ValueError):
    """A federation file, a profile or a member's folder is wrong; the message names key, line and what is allowed."""


class DataError(FednbError, ValueError):
    """A table, column, id or label cannot be used; the message names party, table and column, never a value."""


class CryptoError(FednbError, ValueError):
    """A key, a ciphertext or a fixed-point value is outside the range in which results are proven right."""


class ClusterError(FednbError):
    """The Dask cluster on which a party has its heavy work done failed; the run can be resumed when it works again."""


class NotConnected(FednbError):
    """No federation is connected: `%fed connect` in a notebook, `fednb.connect()` in a script."""


class Refused(FednbError):
    """A member's policy refused. `member` refused, because of `rule`."""

    def __init__(self, message: str, *, member: str = "", rule: str = "") -> None:
        super().__init__(message)
        self.member = member
        self.rule = rule


class QuotaExceeded(Refused):
    """The coordinator was asked to decrypt more slots of one label set than its quota allows."""


class LinkError(FednbError):
    """Something went wrong between two members; `member` is the one at the other end."""

    def __init__(self, message: str, *, member: str = "") -> None:
        super().__init__(plain(message))  # it often repeats the other end's words, which must not act in a terminal
        self.member = member


class PeerLost(LinkError):
    """A member went away, or left the run because of an error of its own."""


class LinkTimeout(LinkError, TimeoutError):
    """Nothing came in time; the message names who waited for what from whom."""


class UnexpectedMessage(LinkError):
    """A peer sent something that does not decode into what the protocol expects at this point."""


class SealBroken(LinkError):
    """An envelope was altered, replayed, or sealed by or for somebody else."""


class VersionMismatch(LinkError):
    """Two members speak different versions of the wire format; the message names both."""


class RunFailed(FednbError):
    """A run ended without a result. `run` is its id, `member` the one that failed first."""

    def __init__(self, message: str, *, run: str = "", member: str = "") -> None:
        super().__init__(message)
        self.run = run
        self.member = member


class RunCancelled(RunFailed):
    """Somebody asked the run to stop."""


@dataclass(frozen=True)
class CellFailure:
    """How a cell ended badly at one member."""

    ename: str  # the remote error's type
    evalue: str  # its message
    traceback: tuple[str, ...] = ()  # as the member's IPython drew it, ANSI colours included


class RemoteError(FednbError):
    """A cell failed at a party, or at several; at the others it finished. `errors` says how, by member."""

    def __init__(self, errors: Mapping[str, CellFailure]) -> None:
        super().__init__("; ".join(f"{member}: {error.ename}: {error.evalue}" for member, error in errors.items()))
        self.errors = dict(errors)

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: each member's own traceback, and none of the frames between here and there."""
        lines: list[str] = []
        for member, failure in self.errors.items():
            lines.append(f"\x1b[1m── {member} " + "─" * max(4, 71 - len(member)) + "\x1b[0m")
            lines.extend(failure.traceback or (f"\x1b[31m{failure.ename}\x1b[0m: {failure.evalue}",))
        return lines
