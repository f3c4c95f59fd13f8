"""One open run of `online_score` as its active party sees it, and the service that always keeps one open.

A session takes the parties' rows as they are when it begins. So it is followed by a new one from time to time, and by
one as soon as something broke; meanwhile nobody gets a score that looks federated.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fednb.errors import DataError, FednbError, LinkError, Refused
from fednb.federation import messages as m
from fednb.federation.client import Federation
from fednb.federation.online_words import Cause, OnlineServe, OnlineState
from fednb.federation.result import rebuilt
from fednb.protocols.base import Dataset
from fednb.protocols.online_part import Score
from fednb.protocols.online_score import Absent, OnlineParams

log = logging.getLogger("fednb.online")

STUCK_SECONDS = 30.0  # without any answer, while some are waited for: the session is given up
LOOK_UP_SECONDS = 0.5
VERDICT_SECONDS = 5.0
RETRY_SECONDS = (1.0, 60.0)  # after a member was lost; doubled each time
REFUSED_SECONDS = 300.0  # after an owner's policy said no


@dataclass
class Asked:
    """One applicant, as the role takes it."""

    id: str
    own: Dataset
    begun: float = field(default_factory=time.monotonic)
    found: Score | DataError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def answer(self, found: Score | DataError) -> None:
        self.found = found
        self.done.set()


class Session:
    """Where the role takes its applicants from (`online_score.Asks`). Safe from any thread."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.run = ""
        self.since = 0.0
        self.why = "the parties are preparing their rows."
        self.cause: Cause = "preparing"
        self.settled = threading.Event()  # open, or over
        self.ended = threading.Event()  # the coordinator has given its verdict
        self._waiting: deque[Asked] = deque()
        self._given: list[Asked] = []
        self._open = False
        self._closing = False
        self._changed = threading.Condition()

    @property
    def open(self) -> bool:
        return self._open and not self._closing

    def ask(self, asked: Asked) -> bool:
        """False when nobody takes it any more."""
        with self._changed:
            if not self._open or self._closing:
                return False
            self._waiting.append(asked)
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """Let the role come to its end when what waits is answered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def stuck(self) -> bool:
        """Whether somebody has waited for an answer for too long."""
        with self._changed:
            begun = [each.begun for each in [*self._given, *self._waiting] if not each.done.is_set()]
        oldest = min(begun, default=None)
        return oldest is not None and time.monotonic() - oldest > STUCK_SECONDS

    # ------------------------------------------------------------ the role's side

    def opened(self) -> None:
        with self._changed:
            self._open, self.since = True, time.time()
        self.settled.set()

    def take(self, most: int) -> Sequence[Asked] | None:
        with self._changed:
            if not self._waiting and not self._closing:
                self._changed.wait(LOOK_UP_SECONDS)
            if not self._waiting and self._closing:
                return None
            self._given = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            return self._given

    def over(self, why: str, cause: Cause = "missing") -> None:
        """What still waits ends with that reason: the first, unless a later one is more than that a member left."""
        with self._changed:
            if self._open or not self.settled.is_set() or cause in ("refused", "data"):
                self.why, self.cause = why or "the session is over.", cause
            self._open = False
            left = [each for each in [*self._given, *self._waiting] if not each.done.is_set()]
            self._waiting.clear()
            self._changed.notify_all()
        for each in left:
            each.done.set()
        self.settled.set()


class Service:
    """One `fednb serve`: keeps a session open for its model, on a thread of its own."""

    def __init__(self, federation: Federation, active: str, asked: OnlineServe) -> None:
        self.id = secrets.token_hex(8)
        self.asked = asked
        self._federation = federation
        self._active = active
        self._current = Session()
        self._sessions: dict[str, Session] = {}
        self._closed = threading.Event()
        self._wake = threading.Event()

    def start(self) -> None:
        """Open the first session, once its run will be known for this service's."""
        threading.Thread(target=self._keep_open, name=f"fednb-online-{self.id}", daemon=True).start()

    def session_of(self, join: m.Join) -> Session | None:
        """The session that a run is for, if it is one of this service's and as this service began it."""
        session = self._sessions.get(str(join.params.get("session", "")))
        if session is None:
            return None
        same = (
            join.data.part == self.asked.model.run
            and join.cast == self._cast()
            and join.params == self._params(session)
        )
        return session if same else None

    def state(self) -> OnlineState:
        session = self._current
        if session.open:
            return OnlineState(open=True, run=session.run, since=session.since)
        return OnlineState(open=False, cause=session.cause, why=session.why)

    def score(self, id: str, own: Dataset, seconds: float) -> tuple[Score | None, Cause, str, str]:
        """A score and the session's run; or the cause and the reason why there is none."""
        session = self._current
        asked = Asked(id, own)
        if not session.ask(asked):
            return None, session.cause, session.why, ""
        if not asked.done.wait(seconds):
            if session.stuck():
                self._give_up(session)
            return None, "timeout", f"the other parties did not answer within {seconds:g} s.", ""
        if isinstance(asked.found, Score):
            return asked.found, "", "", session.run
        if isinstance(asked.found, DataError):
            return None, "absent" if isinstance(asked.found, Absent) else "data", str(asked.found), ""
        return None, session.cause, session.why, ""

    def wake(self) -> None:
        """A member came up: what could not be opened is tried now."""
        self._wake.set()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        for session in list(self._sessions.values()):
            session.close()

    # ------------------------------------------------------------ sessions

    def _keep_open(self) -> None:
        pause = RETRY_SECONDS[0]
        while not self._closed.is_set():
            self._wake.clear()
            session = self._begin()
            session.settled.wait()
            if not session.open:
                session.ended.wait(VERDICT_SECONDS)
            before = self._current
            if session.open or not before.open:
                self._current = session
                before.close()
            if session.open:
                pause = RETRY_SECONDS[0]
                self._until_over(session)
                continue
            log.warning("no online session with the other parties: %s", session.why)
            self._wake.wait(REFUSED_SECONDS if session.cause in ("refused", "data") else pause)
            pause = min(2 * pause, RETRY_SECONDS[1])

    def _until_over(self, session: Session) -> None:
        """Or until its rows are old."""
        due = time.monotonic() + self.asked.refresh
        while session.open and not self._closed.is_set() and time.monotonic() < due:
            self._closed.wait(min(0.2, max(0.0, due - time.monotonic())))

    def _begin(self) -> Session:
        session = Session()
        self._sessions[session.id] = session
        name = f"fednb-session-{session.id[:8]}"
        threading.Thread(target=self._conduct, args=(session,), name=name, daemon=True).start()
        return session

    def _conduct(self, session: Session) -> None:
        """From the first invitation to the end; the coordinator's verdict names the rule that refused."""
        try:
            session.run = self._federation.start(
                "online_score",
                cast=self._cast(),
                data={
                    self._active: m.DataRef(part=self.asked.model.run),
                    **{party: m.DataRef(part=self.asked.model.run) for party in self.asked.seals},
                },
                params=self._params(session),
                title=f"Online scoring at {self._active}",
            )
            for item in self._federation.watch(session.run, away=log.warning):
                if isinstance(item, m.RunEnded) and item.status == "failed":
                    raise rebuilt(item.error, item.error_type, item.member, item.rule)
            session.over("", "missing")
        except FednbError as error:
            session.over(str(error), cause_of(error))
        except Exception as error:
            log.exception("an online session failed")
            session.over(f"an internal error ({type(error).__name__}); the member's own log has the details.")
        finally:
            session.ended.set()
            self._sessions.pop(session.id, None)

    def _give_up(self, session: Session) -> None:
        session.over("the other parties stopped answering.", "timeout")
        session.close()

        def cancel() -> None:
            try:
                self._federation.cancel(session.run)
            except FednbError as error:
                log.warning("run %s could not be cancelled: %s", session.run, error)

        threading.Thread(target=cancel, name="fednb-online-cancel", daemon=True).start()

    def _cast(self) -> dict[str, list[str]]:
        return {"active": [self._active], "passive": list(self.asked.seals)}

    def _params(self, session: Session) -> dict[str, object]:
        seals = {self._active: self.asked.model.seal, **self.asked.seals}
        found = OnlineParams(session=session.id, seals=seals, reasons=self.asked.reasons)
        return {name: getattr(found, name) for name in found.__struct_fields__}


def cause_of(error: Exception) -> Cause:
    if isinstance(error, Refused):
        return "refused"
    return "data" if isinstance(error, DataError) and not isinstance(error, LinkError) else "missing"
