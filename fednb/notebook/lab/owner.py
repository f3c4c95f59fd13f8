"""The members that this notebook's user owns: their inboxes and audit logs, for the page.

Who can read a member's keys, on the machine where its home lies, is its owner: `%fed inbox HOME` opens one, and so does
$FEDNB_OWNS when the kernel starts. Decisions are made here, on the home's own files, by the same `Inbox` as the
command's. Nothing of it goes through the federation, so no analyst's connection has a part in it; and the page holds no
key: it names a request and a decision.
"""

from __future__ import annotations

import logging
import os
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fednb.errors import ConfigError, FednbError
from fednb.federation import audited
from fednb.federation.inbox import Inbox, open_inbox
from fednb.notebook.lab import messages as lab
from fednb.policy import audit, report
from fednb.policy.approvals import Request
from fednb.text import plain
from fednb.wire.keys import MemberHome

log = logging.getLogger("fednb.notebook")

OWNS = "FEDNB_OWNS"  # homes, with colons between them
LOOK_SECONDS = 1.0  # between two looks at whether something has come
LOOK_ANYWAY = 20.0  # requests expire by themselves
MOST_REQUESTS = 500
MOST_TEXT = 200_000  # characters; a cell that may be asked for has half of that
MOST_LEFT = 500


@dataclass
class _Home:
    """One member's home that was opened."""

    home: MemberHome
    file: str
    inbox: Inbox | None
    wrong: str = ""  # why there is no inbox

    @property
    def key(self) -> str:
        return str(self.home.folder)

    @property
    def command(self) -> str:
        return f"%fed inbox {shlex.join([self.key, *([self.file] if self.file else [])])}"


class Owner:
    """What one notebook's user may decide. `changed` is called with news, from any thread."""

    def __init__(self, changed: Callable[[lab.Told], None] = lambda news: None) -> None:
        self.changed = changed
        self._homes: dict[str, _Home] = {}
        self._said: lab.InboxNews | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._trying = threading.Lock()  # one at a time: each starts a kernel

    def open(self, home: str, file: str = "") -> None:
        """The owner of the member in this home is here. Raises ConfigError when its keys cannot be read."""
        member = MemberHome.load(Path(home).expanduser().absolute())
        if member.kind not in ("party", "coordinator"):
            raise ConfigError(f"{home} is the home of the {member.kind} {member.name}; owners have those of parties.")
        try:
            inbox = open_inbox(member.folder, Path(file).expanduser() if file else None)
            opened = _Home(member, file, inbox)
        except ConfigError as error:
            opened = _Home(member, file, None, plain(str(error), 500))
        with self._lock:
            self._homes[opened.key] = opened
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="fednb-lab-inbox", daemon=True)
                self._thread.start()
        self._look()

    def open_all(self) -> None:
        """The homes that $FEDNB_OWNS names."""
        for home in filter(None, os.environ.get(OWNS, "").split(os.pathsep)):
            try:
                self.open(home)
            except FednbError as error:
                log.warning("$%s: %s", OWNS, error)

    def close(self) -> None:
        """Look no more. Idempotent."""
        self._closed.set()

    # ------------------------------------------------------------ what waits

    def news(self) -> lab.InboxNews:
        """What waits in every inbox."""
        with self._lock:
            homes = list(self._homes.values())
        return lab.InboxNews(inboxes=[_own(each) for each in homes])

    def _look(self) -> None:
        news = self.news()
        with self._lock:
            fresh, self._said = news != self._said, news
        if fresh:
            self.changed(news)

    def _watch(self) -> None:
        seen: object = None
        at = 0.0
        while not self._closed.wait(LOOK_SECONDS):
            with self._lock:
                inboxes = [each.inbox for each in self._homes.values() if each.inbox is not None]
            try:
                stamp, now = [each.stamp() for each in inboxes], time.monotonic()
                if stamp != seen or now - at > LOOK_ANYWAY:
                    seen, at = stamp, now
                    self._look()
            except OSError as error:
                log.info("an inbox cannot be read: %s", error)  # a home that was moved away; it says so itself

    # ------------------------------------------------------------ what the page asks

    def answer(self, question: lab.OwnersQuestion) -> None:
        """Do it, and tell what came of it. Raises FednbError."""
        if isinstance(question, lab.Verify):
            self.changed(self._audit())
            return
        inbox = self._inbox(question.home)
        # by its whole id: what is decided on is what was read, and nothing that begins alike
        request = inbox.case(question.request).request
        if request.id != question.request:
            raise ConfigError(f"there is no request {plain(question.request, 40)!r}.")
        if isinstance(question, lab.Open):
            self.changed(_case(question, inbox))
        elif isinstance(question, lab.Try):
            self._try(question, inbox)
        elif isinstance(question, lab.Approve):
            self._decided(inbox.approve(request.id, uses=question.uses, days=question.days))
        else:
            self._decided(inbox.deny(request.id, question.why))

    def _inbox(self, home: str) -> Inbox:
        with self._lock:
            opened = self._homes.get(home)
        if opened is None:
            raise ConfigError(
                "this notebook has opened no such home. Run %fed inbox HOME, where the member's home is; only who can "
                "read its keys decides."
            )
        if opened.inbox is None:
            raise ConfigError(opened.wrong)
        return opened.inbox

    def _decided(self, request: Request) -> None:
        self.changed(lab.Note(text=f"Request {request.id} of {plain(request.analyst, 64)} is {request.state}."))
        self._look()

    def _try(self, question: lab.Try, inbox: Inbox) -> None:
        if not self._trying.acquire(blocking=False):
            raise ConfigError("another request is being tried; wait for it.")
        try:
            self._tell_tried(question, over=False)
            try:
                said = plain(inbox.dry_run(question.request), MOST_TEXT)
                self._tell_tried(question, said or "It says nothing.")
            except FednbError as error:
                self._tell_tried(question, plain(str(error)), failed=True)
        finally:
            self._trying.release()

    def _tell_tried(self, question: lab.Try, text: str = "", *, over: bool = True, failed: bool = False) -> None:
        self.changed(lab.TriedNews(home=question.home, request=question.request, over=over, text=text, failed=failed))

    def _audit(self) -> lab.AuditNews:
        with self._lock:
            homes = [each.home for each in self._homes.values()]
        return lab.AuditNews(checked=time.time(), logs=[_checked(home, homes) for home in homes])


def _own(opened: _Home) -> lab.OwnInbox:
    requests: list[Request] = []
    wrong = opened.wrong
    if opened.inbox is not None:
        try:
            requests = opened.inbox.requests()
        except (FednbError, OSError) as error:
            wrong = plain(str(error), 500)
    return lab.OwnInbox(
        home=opened.key,
        member=opened.home.name,
        command=opened.command,
        wrong=wrong,
        requests=[
            lab.Waiting(
                id=each.id,
                analyst=plain(each.analyst, 64),
                reason=plain(each.reason, 1000),
                state=each.state,
                asked=each.asked,
            )
            for each in requests[:MOST_REQUESTS]
        ],
    )


def _case(question: lab.Open, inbox: Inbox) -> lab.CaseNews:
    case = inbox.case(question.request)
    return lab.CaseNews(
        home=question.home,
        request=case.request.id,
        code=plain(case.request.code, MOST_TEXT),
        before=case.before,
        difference=plain("\n".join(case.difference), MOST_TEXT).splitlines(),
        imports=_words(case.reading.imports),
        tables=_words(case.reading.tables),
        columns=_words(case.reading.columns),
        outputs=_words(case.reading.outputs),
        attention=_words(case.reading.attention),
    )


def _words(found: list[str]) -> list[str]:
    return [plain(each, 300) for each in found[:200]]


def _checked(home: MemberHome, all: list[MemberHome]) -> lab.CheckedLog:
    """With the heads that other members of the same owner hold; those of strangers go to `fednb audit verify`."""
    files = [each.folder / "audit" / "witnessed.jsonl" for each in all if each.folder != home.folder]
    try:
        found = audited.check(home, [each for each in files if each.exists()])
        crossed = report.left(audit.entries(found.folder))
    except FednbError as error:
        return lab.CheckedLog(home=str(home.folder), member=home.name, problems=[plain(str(error), 500)])
    return lab.CheckedLog(
        home=str(home.folder),
        member=home.name,
        entries=found.verdict.entries,
        head=found.verdict.head,
        notes=found.words(),
        problems=[plain(each, 500) for each in found.verdict.problems[:100]],
        left=[
            lab.Left(
                to=plain(to, 100), what=plain(what, 200), rule=plain(rule, 200), messages=n, values=values, bytes=size
            )
            for to, what, rule, n, values, size in crossed[:MOST_LEFT]
        ],
    )
