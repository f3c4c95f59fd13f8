"""The way from `fednb serve` to its member's agent: the local pipe, found anew when the agent was started again."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import TypeVar

from fednb.errors import DataError, FednbError, LinkError, PeerLost
from fednb.federation import messages as m
from fednb.federation.online_desk import POINTER
from fednb.federation.online_words import OnlineAsk, OnlineLook, OnlineScored, OnlineServe, OnlineServing, OnlineState
from fednb.wire.endpoint import Conversation
from fednb.wire.message import Message
from fednb.wire.pipe import PipeEndpoint

M = TypeVar("M", bound=Message)

BEGIN_SECONDS = 120.0
SPARE_SECONDS = 5.0  # beyond what a question may take at the agent


class AgentLink:
    """One service at one member. Safe from any thread."""

    def __init__(self, home: Path, member: str, request: OnlineServe) -> None:
        self._pointer = home / POINTER
        self._member = member
        self._request = request
        self._lock = threading.Lock()
        self._pipe: PipeEndpoint | None = None
        self._service: OnlineServing | None = None
        self._closed = False

    def begin(self) -> OnlineServing:
        """Raises PeerLost while the member is not up, DataError for what it cannot serve."""
        with self._lock:
            if self._closed:
                raise PeerLost("the service was stopped.", member=self._member)
            if self._service is not None and self._pipe is not None and self._pipe.members()[self._member].up:
                return self._service
            self._drop()
            try:
                path = self._pointer.read_text(encoding="utf-8").strip()
                self._pipe = PipeEndpoint(Path(path), f"serve-{secrets.token_hex(4)}", self._member)
            except (FileNotFoundError, LinkError):
                raise PeerLost(
                    f"{self._member} is not up: start it with fednb party (or fednb up) beside this service.",
                    member=self._member,
                ) from None
            talk = self._pipe.open(self._member, "online/serve")  # stays open as long as the service
            self._service = _asked(talk, self._request, OnlineServing, BEGIN_SECONDS)
            return self._service

    def score(self, id: str, features: dict[str, float | str | None] | None, seconds: float) -> OnlineScored:
        service = self.begin()
        ask = OnlineAsk(service=service.service, id=id, features=features, seconds=seconds)
        return self._once(ask, OnlineScored, seconds + SPARE_SECONDS)

    def state(self) -> OnlineState:
        """Never raises: an agent that is not there is a state too."""
        try:
            return self._once(OnlineLook(service=self.begin().service), OnlineState, SPARE_SECONDS)
        except DataError as error:
            return OnlineState(open=False, cause="data", why=str(error))
        except FednbError as error:
            return OnlineState(open=False, cause="missing", why=str(error))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._drop()

    def _once(self, question: Message, kind: type[M], seconds: float) -> M:
        with self._lock:
            pipe = self._pipe
        if pipe is None:
            raise PeerLost(f"{self._member} is not up.", member=self._member)
        talk = pipe.open(self._member, f"online/{secrets.token_hex(8)}")
        try:
            return _asked(talk, question, kind, seconds)
        finally:
            talk.close()

    def _drop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        self._pipe = self._service = None


def _asked(talk: Conversation, question: Message, kind: type[M], seconds: float) -> M:
    talk.send(question)
    answer = talk.recv(kind, m.Failed, timeout=seconds)
    if isinstance(answer, m.Failed):
        raise (DataError if answer.error_type == "DataError" else FednbError)(answer.error)
    return answer
