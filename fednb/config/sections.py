"""What a federation file says, checked: one frozen structure a section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

Mode = Literal["open", "guarded", "protocol-only"]
Role = Literal["id", "key", "measure", "hidden"]

MODES = ("open", "guarded", "protocol-only")
ROLES = ("id", "key", "measure", "hidden")
RELEASES = ("coefficients",)
SANDBOXES = ("auto", "bubblewrap", "landlock", "none")


class ColumnConfig(msgspec.Struct, frozen=True):
    """What analysts of a guarded party may do with a column."""

    role: Role
    cuts: tuple[float, ...] = ()  # of a numeric column: where filters and groups may divide it; (): by rows


class GuardConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a guarded party releases. The defaults are safe ones."""

    k: int = 10  # rows (ids, where one has several rows) behind every figure, and outside its set
    p_percent: float = 10.0  # the second largest must not know the largest's value better than this
    largest_two: float = 90.0  # percent of a sum that its two largest may have
    leverage: float = 0.2  # of any row's variance, explained by everything released
    digits: int = 4  # significant ones of every figure but counts
    releases: int = 2000  # answers in 24 hours, to all analysts
    refusals: int = 200  # in 24 hours, of those that depend on values


class TableConfig(msgspec.Struct, frozen=True):
    """One table of a party: a file, or a query on a database."""

    name: str
    path: Path | None = None  # CSV or Parquet
    source: str | None = None  # "duckdb:///file.duckdb", "sqlite:///file.db", "postgres://user@host/db"
    query: str | None = None
    id: tuple[str, ...] = ()  # columns that identify a row; kept as exact text
    label: str | None = None
    columns: tuple[str, ...] | None = None  # None: all
    separator: str = ","  # of a CSV file
    origin: str = ""  # of a derived table: the one whose rows it has, as far as is known
    of_cells: bool = False  # made by somebody's cell, or from such a table: what its columns are called says nothing
    by_rules: bool = False  # some of its columns were made by rules that an analyst wrote
    recipe: str = ""  # of a table that a run made: names how its rows were made of the declared ones
    roles: Mapping[str, ColumnConfig] = {}  # of columns, at a guarded party
    mock: Mapping[str, tuple[float | str, ...]] = {}  # of invented rows, by column: least and most, or all texts


class PermitConfig(msgspec.Struct, frozen=True):
    """What one analyst may do at one party; "*" in a list means all. Nothing, unless the owner says so."""

    tables: tuple[str, ...] = ()  # by name, those that cells saved too
    protocols: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()  # parties together with whom
    cells: bool = False  # where the mode allows cells at all
    runs_a_day: int | None = None  # instead of what the rules on protocols say
    decrypted: int | None = None  # numbers that its runs may have decrypted for this party, in all


Whole = Annotated[int, msgspec.Meta(ge=0)]
Some = Annotated[int, msgspec.Meta(ge=1)]


class RulesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What runs a party takes part in, whoever asks. What a file leaves out is as here."""

    allow: tuple[str, ...] = ("*",)  # protocols; "*": all that this party has
    partners: tuple[str, ...] = ("*",)  # parties together with whom
    min_ids: Some = 10  # that each side brings to an alignment
    max_ids: Some = 10_000_000
    other_ids: bool = False  # whether tables that declare an id are aligned on other columns too
    min_rows: Some = 20
    rows_per_feature: Annotated[float, msgspec.Meta(ge=1)] = 10.0  # of a batch, for each of this party's features
    max_iterations: Some = 200
    min_leaf: Some = 10  # rows
    decrypted_per_row: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.5  # numbers of one label set, for each member
    rows_apart: Some = 10  # by which two sets of rows differ, if at all, of which figures leave
    standard_errors: bool = False  # whether this party's features take part in those of everybody's coefficients
    psi_spu: bool = False  # whether it aligns by a library that is not fednb's, for parties that keep to the protocol
    runs_a_day: Whole = 500  # of each analyst
    alignments_a_day: Whole = 50
    of: Mapping[str, RulesConfig] = {}  # by protocol, where it has rules of its own
    cell_columns: bool = False  # whether figures of single columns leave of tables that cells made, too
    # of boosted trees
    min_shown: Whole = 0  # rows of a node, if others may see which they are
    active_trees: Whole = 0  # rounds that the label's party does alone
    max_purity: Annotated[float, msgspec.Meta(gt=0.5, le=1)] = 1.0  # of a split's child: its share of one class
    anonymous_splits: bool = False  # whether splits are shown without their features

    def on(self, protocol: str) -> RulesConfig:
        """The rules that hold for one protocol."""
        return self.of.get(protocol, self)


class OnlineConfig(msgspec.Struct, frozen=True):
    """What one party's online scoring service may ask of another. Nothing, unless the owner says so."""

    table: str  # where applicants are looked up, by its declared id
    models: tuple[str, ...]  # by the ids under which they were saved; "*": any that this party has a saved part of
    requests_a_day: int  # applicants, UTC
    reasons: int = 0  # features that cost an applicant most points, of a scorecard: as many may be named


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one sandboxed kernel may use up."""

    memory_mb: int = 4096  # address space
    cpu_seconds: int = 3600  # of processor time, in its whole life
    file_mb: int = 256  # a file that it writes; with bubblewrap all in its working folder together


class PartyConfig(msgspec.Struct, frozen=True):
    """One party: what its owner allows, and its tables by name."""

    name: str
    mode: Mode = "protocol-only"
    release: tuple[str, ...] = ()  # what of its own a party shows the analyst after a run
    protocols: tuple[str, ...] = ()  # "module:attribute" of protocols that the owner installed
    accept_coordinator_at: tuple[str, ...] = ()  # parties in whose organisation the secret key may lie
    dask: str = ""  # the scheduler of the party's own Dask cluster, for heavy work; "": this machine's threads
    approval: bool = False  # cells run that the owner approved, each in a kernel of its own
    sandbox: str = "auto"  # around kernels; "none" in open mode only
    limits: LimitsConfig = LimitsConfig()
    tables: Mapping[str, TableConfig] = {}
    guard: GuardConfig = GuardConfig()
    analysts: Mapping[str, PermitConfig] | None = None  # by analyst; None (on loopback): everybody may do all
    rules: RulesConfig = RulesConfig()
    online: Mapping[str, OnlineConfig] = {}  # by party whose service asks


class CoordinatorConfig(msgspec.Struct, frozen=True):
    """The coordinator; `open` lets analysts run cells in its kernel, which holds neither tables nor keys."""

    name: str = "coordinator"
    mode: Mode = "protocol-only"
    decryption_quota: float = 0.5  # slots for each label set and party, as a multiple of training rows
    protocols: tuple[str, ...] = ()
    organisation: str = ""  # the party whose organisation runs it; "": apart from all


class FederationConfig(msgspec.Struct, frozen=True):
    """A whole federation file."""

    path: Path
    name: str
    hub: str  # "tcp://host:port"; port 0 is any free one
    coordinator: CoordinatorConfig
    parties: Mapping[str, PartyConfig]
    analysts: tuple[str, ...] = ("analyst",)

    @property
    def members(self) -> dict[str, str]:
        """Every member's kind by name, the hub first."""
        return (
            {"hub": "hub", self.coordinator.name: "coordinator"}
            | dict.fromkeys(self.parties, "party")
            | dict.fromkeys(self.analysts, "analyst")
        )
