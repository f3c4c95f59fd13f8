"""From a request to an answer that says what it is: a federated score, a fallback, or none.

Every answer is written down before it leaves: status, both scores where there are both, and which models gave them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from fednb.errors import DataError, FednbError
from fednb.federation.online_words import Figure, OnlineScored, OnlineState
from fednb.policy.audit import AuditLog
from fednb.serving.agent_link import AgentLink
from fednb.serving.deployed import Deployed, Version

# why there is no federated score -> the HTTP status where there is no fallback either
CAUSES = {"missing": 503, "preparing": 503, "timeout": 504, "refused": 403, "absent": 404, "data": 409}
UNKNOWN = 404

Features = dict[str, float | str | None] | None

LOG = "scores"  # folder in the member's home


class Reason(msgspec.Struct, frozen=True):
    """A feature that cost the applicant points; the first of a party cost most of that party's."""

    party: str
    code: int
    feature: str


class Both(msgspec.Struct, frozen=True):
    """Scores by both models, as far as there are."""

    federated: float | None = None
    fallback: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request gets."""

    request_id: str
    status: Literal["federated", "fallback", "refused"]  # all parties; the active party's own model; no score
    cause: str = ""  # why it is not federated, in a word: "missing", "timeout", "refused", "absent", ...
    why: str = ""  # and in words
    score: float | None = None
    meaning: str = ""  # of the score: "probability", "value" in the label's unit, or "rate"
    points: float | None = None  # of a scorecard
    reasons: list[Reason] = []
    unseen: list[str] = []  # own features whose value too few training rows had: they count as average
    no_evidence: dict[str, int] = {}  # by party: how many features of it did so
    scores: Both = Both()
    model: Version | None = None  # that gave the score
    run: str = ""  # the session with the other parties
    at: float = 0.0  # unix seconds
    latency_ms: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What the owner chose."""

    timeout: float = 5.0  # seconds that the other parties have for one applicant
    falls_back_on: Collection[str] = tuple(CAUSES)
    log_applicants: bool = False  # ids and features too


class Service:
    """Answers requests. Safe from any thread."""

    def __init__(self, deployed: Deployed, agent: AgentLink, log: AuditLog, rules: Rules) -> None:
        self.deployed = deployed
        self._agent = agent
        self._log = log
        self._rules = rules
        log.append("service started", **self._versions(), rules=self._rules_in_words())

    def score(self, id: str, features: Features) -> tuple[int, Answer]:
        """An HTTP status and the answer. Raises FednbError when it cannot be written down."""
        began = time.monotonic()
        code, answer = self._decided(self._asked(id, features))
        answer = msgspec.structs.replace(
            answer, at=round(time.time(), 3), latency_ms=round(1000 * (time.monotonic() - began), 2)
        )
        about: dict[str, Any] = msgspec.to_builtins(answer)
        if self._rules.log_applicants:
            about |= {"applicant": id, "features": features}
        about["answered_at"] = about.pop("at")
        self._log.append("scored", http=code, **self._versions(), answered_by=about.pop("model"), **about)
        return code, answer

    def state(self) -> OnlineState:
        return self._agent.state()

    def close(self) -> None:
        self._agent.close()
        self._log.append("service stopped", **self._versions())

    def _asked(self, id: str, features: Features) -> OnlineScored:
        try:
            return self._agent.score(id, features, self._rules.timeout)
        except DataError as error:
            return OnlineScored(cause="data", why=str(error), why_no_fallback="this party could not be asked.")
        except TimeoutError as error:
            return OnlineScored(cause="timeout", why=str(error), why_no_fallback="this party did not answer.")
        except FednbError as error:
            return OnlineScored(cause="missing", why=str(error), why_no_fallback="this party is not up.")

    def _decided(self, found: OnlineScored) -> tuple[int, Answer]:
        request = secrets.token_hex(8)
        if found.unknown:
            why = f"{self.deployed.party}'s table has no row of this applicant."
            return UNKNOWN, Answer(request_id=request, status="refused", cause="unknown", why=why)
        both = Both(
            None if found.federated is None else found.federated.value,
            None if found.fallback is None else found.fallback.value,
        )
        if found.federated is not None:
            answer = self._answer(request, found.federated, both, spare=False)
            return 200, msgspec.structs.replace(answer, meaning=self._agent.begin().meaning, run=found.run)
        if found.fallback is not None and found.cause in self._rules.falls_back_on:
            answer = self._answer(request, found.fallback, both, spare=True)
            return 200, msgspec.structs.replace(answer, meaning="probability", cause=found.cause, why=found.why)
        spared = " For that the owner has no fallback." if found.fallback else ""
        why = f"{found.why}{spared} {found.why_no_fallback}".strip()
        return CAUSES[found.cause], Answer(request_id=request, status="refused", cause=found.cause, why=why)

    def _answer(self, request: str, figure: Figure, both: Both, *, spare: bool) -> Answer:
        return Answer(
            request_id=request,
            status="fallback" if spare else "federated",
            score=figure.value,
            points=figure.points,
            reasons=[
                Reason(party, code, self.deployed.named(party, code, spare=spare))
                for party, codes in figure.reasons.items()
                for code in codes
            ],
            unseen=list(figure.unseen),
            no_evidence=dict(figure.no_evidence),
            scores=both,
            model=self.deployed.fallback_version() if spare else self.deployed.version(),
        )

    def _versions(self) -> Mapping[str, Any]:
        fallback = self.deployed.fallback_version()
        return {
            "serves": msgspec.to_builtins(self.deployed.version()),
            "falls_back_to": None if fallback is None else msgspec.to_builtins(fallback),
        }

    def _rules_in_words(self) -> dict[str, Any]:
        return {
            "timeout": self._rules.timeout,
            "falls_back_on": sorted(self._rules.falls_back_on),
            "log_applicants": self._rules.log_applicants,
        }
