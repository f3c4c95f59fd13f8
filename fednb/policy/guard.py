"""A link that asks the party's rules before each message leaves.

It looks at what a message's kind declares, never at who told the role to send it: a coordinator that asks for one
iteration more, or for a message that the protocol does not have, gets a refusal and no message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from fednb.config import RulesConfig
from fednb.errors import Refused
from fednb.wire.link import Link
from fednb.wire.message import Message

M = TypeVar("M", bound=Message)

Sends = Mapping[tuple[str, str], Sequence[type[Message]]]
Answer = Callable[[int], None]  # how many questions about single rows are answered; raises Refused


class Spend(Protocol):
    """Counts numbers that are to be decrypted. Raises Refused."""

    def __call__(self, member: str, n: int, label: bool, columns: bool = False) -> None:
        """For `member`, `n` numbers: of this party's own label, or sums over its columns, or neither."""
        ...


KEY_HOLDER = "coordinator"  # the role that holds the secret key


class GuardedLink:
    """Wraps one role's link in one run."""

    def __init__(
        self,
        link: Link,
        protocol: str,
        sends: Sends,
        rules: RulesConfig,
        iterations: int,
        spend: Spend,
        answer: Answer | None = None,
    ) -> None:
        """`iterations` are those that this run still has; `spend` counts numbers that are to be decrypted.

        answer : counts answers about single rows; without it none is given.
        """
        self.me = link.me
        self._link = link
        self._protocol = protocol
        self._sends = sends
        self._rules = rules
        self._iterations = iterations
        self._spend = spend
        self._answer = answer
        self._role = {member: role for role, members in link.cast.items() for member in members}
        self._sent: Counter[tuple[str, type[Message]]] = Counter()

    @property
    def cast(self) -> Mapping[str, tuple[str, ...]]:
        return self._link.cast

    def send(self, to: str, message: Message) -> None:
        """Raises Refused, naming the rule, and then sends nothing."""
        self._check_kind(to, type(message))
        self._check_number(to, type(message))
        self._count(to, message)
        self._link.send(to, message)

    def recv(self, sender: str, kind: type[M]) -> M:
        """Raises Refused for sets of ids that are too small or too large to go on."""
        message = self._link.recv(sender, kind)
        declared = kind.discloses
        if declared is not None and declared.sizes:
            said = getattr(message, declared.sizes)
            for size in said if isinstance(said, list) else [said]:
                check_ids(self.me, size, self._rules, "takes part in no alignment in which one side brings")
        return message

    def _check_kind(self, to: str, kind: type[Message]) -> None:
        way = self._role.get(self.me, ""), self._role.get(to, "")
        declared = kind.discloses
        if declared is None or kind not in self._sends.get(way, ()):
            raise self._refused(
                f"does not send {kind.__name__} to {to}: {self._protocol} declares no such message from "
                f"{way[0] or 'it'} to {way[1] or 'it'}. Whoever wrote the protocol has to declare it.",
                "messages",
            )
        if declared.form == "encrypted" and way[1] == KEY_HOLDER:
            raise self._refused(f"does not send {kind.__name__} to {to}, which holds the secret key to it.", "messages")

    def _check_number(self, to: str, kind: type[Message]) -> None:
        each = kind.discloses.each if kind.discloses else "run"
        if each == "run" and self._sent[to, kind]:
            raise self._refused(f"sends {kind.__name__} to {to} once in a run of {self._protocol}.", "messages")
        over = each == "iteration" and self._sent[to, kind] >= self._iterations
        if over or (each == "slice" and self._played() >= self._iterations):
            raise self._refused(
                f"has sent what it sends in the {self._iterations} iterations of this run, and is asked for "
                f"{kind.__name__} once more. The coordinator does not keep to the protocol.",
                "max_iterations",
            )
        self._sent[to, kind] += 1

    def _played(self) -> int:
        """Iterations that are over: of each message that goes once in one, so many have gone."""
        done = [n for (_, kind), n in self._sent.items() if kind.discloses and kind.discloses.each == "iteration"]
        return min(done, default=0)

    def _count(self, to: str, message: Message) -> None:
        declared = message.discloses
        if declared is not None and declared.columns:
            self._spend(self.me, entries(message), False, columns=True)
        elif declared is not None and declared.decrypts and self._role.get(to) == KEY_HOLDER:
            self._spend(self.me, entries(message), False)
        elif declared is not None and declared.label:
            self._spend(to, 1, True)  # whoever gets it can have at least one number decrypted
        elif declared is not None and declared.answers:
            if self._answer is None:
                raise self._refused(f"gives {to} no answers about single rows.", "messages")
            self._answer(entries(message))

    def _refused(self, text: str, rule: str) -> Refused:
        return Refused(f"{self.me} {text}", member=self.me, rule=f"protocols.{rule}")


def entries(message: Message) -> int:
    """How many numbers are decrypted of a message: as many as it says, or one of each ciphertext that it carries."""
    said = getattr(message, "numbers", None)
    if isinstance(said, int):
        return said
    return sum(len(part) for name in message.__struct_fields__ if hasattr(part := getattr(message, name), "__len__"))


def check_ids(member: str, ids: int, rules: RulesConfig, words: str) -> None:
    """Whether a set may be aligned: one too small singles out, one too large probes. Raises Refused."""
    if ids < rules.min_ids:
        raise Refused(
            f"{member} {words} fewer than {rules.min_ids} ids; that would tell of single ones. Align more at once.",
            member=member,
            rule="protocols.min_ids",
        )
    if ids > rules.max_ids:
        raise Refused(
            f"{member} {words} more than {rules.max_ids:,} ids. Align a smaller table.",
            member=member,
            rule="protocols.max_ids",
        )
