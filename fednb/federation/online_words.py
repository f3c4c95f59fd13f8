"""The vocabulary between `fednb serve` and the agent of its party, over the agent's local pipe.

service ── "online/serve" ─> agent       OnlineServe; the service goes on as long as the conversation
        <────────────────────             OnlineServing | Failed
service ── "online/<id>" ──> agent       OnlineAsk | OnlineLook
        <────────────────────             OnlineScored | OnlineState | Failed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from fednb.errors import DataError
from fednb.federation.messages import Id, Name, Word
from fednb.wire.message import Message

# why there is no federated score: a party or the coordinator is not there; nothing came in time; an owner's policy;
# a party has no row of the applicant; something does not fit the model; no session is open yet
Cause = Literal["", "missing", "timeout", "refused", "absent", "data", "preparing"]


def check_declared(member: str, part: Mapping[str, Any]) -> None:
    """Raises DataError for a part that was trained on rows which a run or a cell had prepared: applicants' are raw.

    Weights of evidence or imputed amounts have the names of the columns that they were made of, and a raw value in
    their place would give a wrong score without a sign of it. A scorecard has its bins with it.
    """
    if part.get("trained_on"):
        raise DataError(
            f"{member}'s part of the model was trained on a table that was prepared from another, and applicants come "
            "as they are. Serve a scorecard, or train on a table that the owner declares."
        )


class OwnModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This party's part of a saved model."""

    run: Id  # under which it was saved
    seal: Word
    features: Annotated[list[Word], msgspec.Meta(max_length=10_000)]


class OnlineServe(Message):
    model: OwnModel
    seals: dict[Word, Word]  # of every passive party's part, in the order of the model
    reasons: Annotated[int, msgspec.Meta(ge=0, le=4)] = 0
    fallback: OwnModel | None = None  # a model of this party's own features
    table: Name | None = None  # of this party's, where applicants without features are looked up
    refresh: Annotated[float, msgspec.Meta(gt=0)] = 3600.0  # seconds, after which the parties' rows are taken anew


class OnlineServing(Message):
    service: Id
    meaning: Word  # of a score: "probability", "value" or "rate"
    texts: list[Word] = []  # features of this party's that the model knows as text


class OnlineAsk(Message):
    service: Id
    id: Annotated[str, msgspec.Meta(max_length=200)]
    features: dict[Word, float | Word | None] | None = None  # None: those of the applicant's row in the service's table
    seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One score."""

    value: float
    points: float | None = None
    reasons: dict[Word, list[int]] = {}  # by party: numbers of features, from 1
    no_evidence: dict[Word, int] = {}  # by party: how many features' values too few training rows had
    unseen: list[Word] = []  # and which of this party's own


class OnlineScored(Message):
    federated: Figure | None = None
    fallback: Figure | None = None
    cause: Cause = ""
    why: Annotated[str, msgspec.Meta(max_length=4000)] = ""  # there is no federated score
    why_no_fallback: Annotated[str, msgspec.Meta(max_length=4000)] = ""
    unknown: bool = False  # the applicant has no row in the service's table
    run: str = ""  # the session that gave the federated score


class OnlineLook(Message):
    service: Id


class OnlineState(Message):
    open: bool
    cause: Cause = ""
    why: Annotated[str, msgspec.Meta(max_length=4000)] = ""
    run: str = ""
    since: float = 0.0  # unix seconds, when the parties' rows were taken
