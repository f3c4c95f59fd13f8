"""What a kind of message tells whoever receives it, declared beside its fields: policies decide by it.

A message without a declaration tells nobody knows what, so a guarded member does not send it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# plain: the receiver reads it; a protocol's leakage table names it
# encrypted: only a holder of the secret key could read it, so it never goes to the coordinator
# masked: hidden by random numbers that are used once
# blinded: points of a curve, meaningless without both parties' secrets
Form = Literal["plain", "encrypted", "masked", "blinded"]


@dataclass(frozen=True)
class Disclosure:
    """`what` is said to people: "each row's score"."""

    what: str
    form: Form = "plain"
    # one receiver gets one a run, one an iteration, many within an iteration, or many
    each: Literal["run", "iteration", "slice", "piece"] = "run"
    decrypts: bool = False  # the receiver decrypts one number for each entry
    label: bool = False  # made of the sender's labels, under encryption: counts against their quota
    columns: bool = False  # sums over the sender's columns: count against those that are told of its table
    sizes: str = ""  # the field that says how many ids each set has
    answers: bool = False  # each entry answers a question about one row, at the asker's choice: counted by the day
