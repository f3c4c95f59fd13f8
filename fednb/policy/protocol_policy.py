"""An owner's rules on runs: which protocols, with whom, on how much, how often. Nobody else can get round them.

    check    before any table is opened: protocol, partners, parameters, what of today's runs is left
    begin    with the rows in hand: how many, against how many features, and how far from sets that were used before
    guard    while the role plays: a link that checks each message (see `guard`), and counts what is decrypted

What a run is counted for is written down before it begins. The analyst's name comes from the coordinator; rules that
name no analyst hold whoever is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fednb.config import OnlineConfig, PermitConfig, RulesConfig
from fednb.errors import QuotaExceeded, Refused
from fednb.policy.apart import Cells, Keys, SetLedger
from fednb.policy.counts import Counts
from fednb.policy.guard import GuardedLink, Sends, check_ids
from fednb.wire.link import Link

NO_LIMIT = 1 << 62
ANSWERS = "online requests"
# protocols that a party takes part in only where its rule of that name says so
CONSENTS = ("standard_errors", "psi_spu")

# what a protocol's parameters say: the rule on it, 1 where that is the least and -1 where it is the most, and why not
_ASKED = {
    "leaf": ("min_leaf", 1, "allows no leaf of fewer than {limit} rows, and was asked for {wish}."),
    "shown": (
        "min_shown",
        1,
        "has others see which rows are in a node only where these are {limit} or more, and was asked for {wish}. Use "
        "min_shown={limit}.",
    ),
    "alone": (
        "active_trees",
        1,
        "takes part where the label's party does the first {limit} rounds alone, and was asked for {wish}. Use "
        "active_trees={limit}.",
    ),
    "purity": (
        "max_purity",
        -1,
        "allows no split with a child of which more than {limit:g} are of one class, and was asked for {wish}. Use "
        "purity={limit:g}.",
    ),
    "anonymous": (
        "anonymous_splits",
        1,
        "shows splits only without saying which are of one feature. Use anonymous_splits=True.",
    ),
}


@dataclass(frozen=True)
class Asked:
    """What of an invitation to a run the rules look at."""

    run: str
    protocol: str
    analyst: str
    partners: Sequence[str]  # parties, without oneself and the coordinator
    aligns: bool = False  # ids are compared
    figures: bool = False  # sums and figures of this party's rows come of it
    columns: bool = False  # figures of its single columns come of it
    limits: Mapping[str, float] = field(default_factory=dict)  # of "iterations", "batch", and those of `_ASKED`
    sends: Sends = field(default_factory=dict)
    resumed: bool = False
    online: bool = False  # another party's service asks about applicants one by one


@dataclass(frozen=True)
class Facts:
    """This party's own data in a run."""

    rows: int = 0
    features: int = 0
    ids: int | None = None  # that it brings to an alignment
    account: str = ""  # the table that the rows come from, whatever was derived from it since
    keys: Keys | None = None  # of the rows or ids, made of normalised ids
    of_cells: bool = False  # somebody's cell made the table
    by_rules: bool = False  # an analyst's rules did
    other_ids: bool = False  # they are not what the table declares as its id
    label_set: str = ""  # "loans.default", where this party holds the label


class ProtocolPolicy:
    """The rules of one party, with its counts in `folder`. Safe from any thread."""

    def __init__(
        self,
        member: str,
        rules: RulesConfig | None = None,
        analysts: Mapping[str, PermitConfig] | None = None,
        folder: Path | None = None,
        online: Mapping[str, OnlineConfig] | None = None,
    ) -> None:
        self.member = member
        self._rules = rules or RulesConfig()
        self._analysts = analysts or {}
        self._online = online or {}
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runs = Counts(folder and folder / "runs.json", keep=lambda account: account >= _today())
        self._decrypted = Counts(folder and folder / "decrypted.json")
        self._sets = SetLedger(folder and folder / "sets")

    def check(self, asked: Asked) -> None:
        """Raises Refused, naming the rule. Counts nothing."""
        rules = self._rules.on(asked.protocol)
        for rule, names, allowed in (
            ("allow", [asked.protocol], self._rules.allow),
            ("partners", asked.partners, rules.partners),
        ):
            for name in names:
                if name not in allowed and "*" not in allowed:
                    what = f"runs no {name}" if rule == "allow" else f"runs {asked.protocol} with no {name}"
                    raise self._refused(f"{what}; allowed are {', '.join(allowed) or 'none'}.", rule)
        if asked.protocol in CONSENTS and not getattr(rules, asked.protocol):
            raise self._refused(f"takes part in no {asked.protocol}: its owner has not said yes to it.", asked.protocol)
        iterations = int(asked.limits.get("iterations", 0))
        if iterations > rules.max_iterations:
            raise self._refused(
                f"takes part in at most {rules.max_iterations} iterations of {asked.protocol}, and was asked for "
                f"{iterations}.",
                "max_iterations",
            )
        for what, (rule, sign, words) in _ASKED.items():
            limit, wish = getattr(rules, rule), asked.limits.get(what)
            if wish is not None and sign * (wish - limit) < 0:
                raise self._refused(words.format(limit=limit, wish=f"{wish:g}"), rule)
        self._check_runs(asked)
        if asked.online and not self._runs.fits(f"{_today()} {asked.analyst}", ANSWERS, 1, self._answers_a_day(asked)):
            raise self._answered_enough(asked)

    def begin(self, asked: Asked, facts: Facts) -> None:
        """Check what the run would use, and count it. Raises Refused, naming the rule; then the run does not count."""
        rules = self._rules.on(asked.protocol)
        self._check_runs(asked)
        if facts.ids is not None:
            if facts.other_ids and not rules.other_ids:
                raise self._refused(
                    f"aligns {facts.account} by its declared id only: other columns would tell which values both have.",
                    "other_ids",
                )
            check_ids(self.member, facts.ids, rules, "aligns no set with")
            self._check_apart(asked, facts, rules, f"aligned with {' and '.join(sorted(asked.partners))}")
        if asked.columns and (facts.of_cells or facts.by_rules) and not rules.cell_columns:
            who = ("cells", "a cell") if facts.of_cells else ("an analyst's rules", "a rule")
            raise self._refused(
                f"gives no figures of single columns of a table that {who[0]} made ({asked.protocol}): what {who[1]} "
                f"writes into a column can mark a row. Use the table {facts.account or 'that its owner declared'}.",
                "cell_columns",
            )
        if asked.figures:
            self._check_rows(asked, facts, rules)
            self._check_apart(asked, facts, rules, "figures")
        if not asked.resumed:
            for name, (limit, rule) in self._runs_a_day(asked).items():
                if not self._runs.take(f"{_today()} {asked.analyst}", name, 1, limit):
                    raise self._used_up(asked, name, limit, rule)

    def guard(self, asked: Asked, facts: Facts, done: int = 0) -> Callable[[Link], Link]:
        """What wraps the role's link; `done` iterations were played before, by a run that is resumed."""
        rules = self._rules.on(asked.protocol)
        iterations = max(0, int(asked.limits.get("iterations", rules.max_iterations)) - done)

        def spend(member: str, n: int, label: bool, columns: bool = False) -> None:
            each = -(-n // max(1, facts.features)) if columns else n  # of one column, which the label may be
            self._spend(asked, facts, rules, member, n, label, each)
            if columns:
                self._spend_columns(facts, rules, each)

        def answer(n: int) -> None:
            if not self._runs.take(f"{_today()} {asked.analyst}", ANSWERS, n, self._answers_a_day(asked)):
                raise self._answered_enough(asked)

        return lambda link: GuardedLink(link, asked.protocol, asked.sends, rules, iterations, spend, answer)

    def apart(self, asked: Asked, facts: Facts, column: str, sets: Cells) -> None:
        """Note sets of rows [n] that somebody cut a column into, with edges of their choice; -1: in none.

        Raises Refused where edges so close to earlier ones would tell of the few rows between.
        """
        rules = self._rules.on(asked.protocol)
        if facts.keys is None:
            raise self._refused("cannot tell which of its rows these are. Align the tables again.", "rows_apart")
        inside = sets >= 0
        account = f"{facts.account}: edges of {column}"
        if self._sets.take(account, facts.keys[inside], rules.rows_apart, sets=sets[inside]):
            raise self._refused(
                f"does not cut {column!r} there: between these edges and those that were used before lie fewer than "
                f"{rules.rows_apart} rows. Use the same edges as before, or such as are further away.",
                "rows_apart",
            )

    def _check_rows(self, asked: Asked, facts: Facts, rules: RulesConfig) -> None:
        if facts.rows < rules.min_rows:
            raise self._refused(
                f"takes part in {asked.protocol} on {rules.min_rows} rows or more, and was asked for {facts.rows}.",
                "min_rows",
            )
        if "iterations" not in asked.limits and "batch" not in asked.limits:
            return
        batch = min(int(asked.limits.get("batch", facts.rows)), facts.rows)
        if batch < rules.rows_per_feature * facts.features:
            raise self._refused(
                f"has {facts.features} features for {batch} rows of a batch, and its rule asks for "
                f"{rules.rows_per_feature:g} rows or more for each. Use more rows or fewer features.",
                "rows_per_feature",
            )

    def _check_apart(self, asked: Asked, facts: Facts, rules: RulesConfig, purpose: str) -> None:
        if facts.keys is None:
            raise self._refused("cannot tell which of its rows these are. Align the tables again.", "rows_apart")
        # an owner's own table changes as it must; variants of it that cells make are what could be compared
        own = facts.ids is not None and not facts.of_cells
        if self._sets.take(f"{facts.account}: {purpose}", facts.keys, rules.rows_apart, always=own):
            what = "figures" if facts.ids is None else "alignment"
            raise self._refused(
                f"gives no {what} of these rows: beside what left of other rows of {facts.account} before, it would "
                f"tell of fewer than {rules.rows_apart} rows. Use the same rows as before, or more that differ.",
                "rows_apart",
            )

    def _check_runs(self, asked: Asked) -> None:
        if not asked.resumed:
            for name, (limit, rule) in self._runs_a_day(asked).items():
                if not self._runs.fits(f"{_today()} {asked.analyst}", name, 1, limit):
                    raise self._used_up(asked, name, limit, rule)

    def _runs_a_day(self, asked: Asked) -> dict[str, tuple[int, str]]:
        """What of today is counted (runs, those of a protocol with rules of its own, alignments): limit and rule."""
        permit = self._analysts.get(asked.analyst)
        own = permit.runs_a_day if permit is not None else None
        most = {
            "runs": (self._rules.runs_a_day, "protocols.runs_a_day") if own is None else (own, "analysts.runs_a_day")
        }
        if asked.protocol in self._rules.of:
            most[f"runs of {asked.protocol}"] = self._rules.on(asked.protocol).runs_a_day, "protocols.runs_a_day"
        if asked.aligns:
            most["alignments"] = self._rules.on(asked.protocol).alignments_a_day, "protocols.alignments_a_day"
        return most

    def _answers_a_day(self, asked: Asked) -> int:
        permit = self._online.get(asked.analyst)
        return permit.requests_a_day if permit is not None else 0

    def _answered_enough(self, asked: Asked) -> QuotaExceeded:
        return QuotaExceeded(
            f"{self.member} answers {self._answers_a_day(asked):,} requests a day of {asked.analyst}'s service, and "
            "these are used up. Go on tomorrow (UTC).",
            member=self.member,
            rule="online.requests_a_day",
        )

    def _used_up(self, asked: Asked, what: str, limit: int, rule: str) -> QuotaExceeded:
        return QuotaExceeded(
            f"{self.member} takes part in {limit} {what} a day for {asked.analyst}, and these are used up. Go on "
            "tomorrow (UTC).",
            member=self.member,
            rule=rule,
        )

    def _spend(
        self, asked: Asked, facts: Facts, rules: RulesConfig, member: str, n: int, label: bool, of_label: int
    ) -> None:
        permit = self._analysts.get(asked.analyst)
        most = permit.decrypted if permit is not None else None
        if not label and not self._decrypted.take("analysts", asked.analyst, n, NO_LIMIT if most is None else most):
            raise QuotaExceeded(
                f"{self.member} has {most} numbers decrypted in runs of {asked.analyst}, and these are used up.",
                member=self.member,
                rule="analysts.decrypted",
            )
        limit = int(rules.decrypted_per_row * facts.rows)
        if facts.label_set and not self._decrypted.take(facts.label_set, member, of_label, limit):
            raise QuotaExceeded(
                f"{self.member} lets {limit} numbers made of {facts.label_set} be decrypted for {member} over all "
                "runs on so many rows, and these are used up. Use more rows, or fewer iterations from the start.",
                member=self.member,
                rule="protocols.decrypted_per_row",
            )

    def _spend_columns(self, facts: Facts, rules: RulesConfig, each: int) -> None:
        """As many sums over one column as there are rows would be solvable for it."""
        limit = int(rules.decrypted_per_row * facts.rows)
        if not self._decrypted.take(f"{facts.account}: columns", "sums", each, limit):
            raise QuotaExceeded(
                f"{self.member} lets {limit} sums over each column of {facts.account} be told over all runs on so many "
                "rows, and these are used up. Use more rows, or fewer columns of others from the start.",
                member=self.member,
                rule="protocols.decrypted_per_row",
            )

    def _refused(self, text: str, rule: str) -> Refused:
        return Refused(f"{self.member} {text}", member=self.member, rule=f"protocols.{rule}")


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
