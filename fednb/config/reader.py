"""Reads a federation file strictly.

A misspelt key in it is a table left out or a policy not applied: unknown keys are refused, and every error names the
file, the line, the key and what is allowed there.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec

from fednb.config.lines import lines_of
from fednb.config.sections import (
    MODES,
    RELEASES,
    ROLES,
    SANDBOXES,
    ColumnConfig,
    CoordinatorConfig,
    FederationConfig,
    GuardConfig,
    LimitsConfig,
    Mode,
    OnlineConfig,
    PartyConfig,
    PermitConfig,
    RulesConfig,
    TableConfig,
    Whole,
)
from fednb.errors import ConfigError
from fednb.typed import known

S = TypeVar("S", bound=msgspec.Struct)

# of a guard's settings: looser ones would promise what they do not hold
GUARD_LIMITS = {
    "k": (5, 1000),
    "p_percent": (1, 100),
    "largest_two": (10, 95),
    "leverage": (0.01, 0.3),
    "digits": (2, 6),
    "releases": (1, 1_000_000),
    "refusals": (1, 10_000),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_RESERVED = {"hub": "the relay itself", "all": "every party, in %%party all"}


class _Federation(msgspec.Struct, forbid_unknown_fields=True):
    hub: str
    coordinator: str = "coordinator"
    name: str | None = None


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    path: str | None = None
    source: str | None = None
    query: str | None = None
    id: str | list[str] | None = None
    label: str | None = None
    columns: list[str] | None = None
    separator: str = ","
    roles: dict[str, Any] = {}
    mock: dict[str, list[float | str]] = {}


class _Role(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    cuts: list[float] = []


class _Party(msgspec.Struct, forbid_unknown_fields=True):
    mode: str | None = None
    release: list[str] = []
    protocols: list[str] | dict[str, Any] = []  # installed ones, or a section of rules with `install` among them
    accept_coordinator_at: list[str] = []
    dask: str | None = None
    approval: bool = False
    sandbox: str | None = None
    limits: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    guard: dict[str, Any] = {}
    analysts: dict[str, dict[str, Any]] = {}
    online: dict[str, dict[str, Any]] = {}


class _Permit(msgspec.Struct, forbid_unknown_fields=True):
    tables: list[str] = []
    protocols: list[str] = []
    partners: list[str] = []
    cells: bool = False
    runs_a_day: Whole | None = None
    decrypted: Whole | None = None


class _Online(msgspec.Struct, forbid_unknown_fields=True):
    table: str
    models: list[str]
    requests_a_day: Whole
    reasons: Annotated[int, msgspec.Meta(ge=0, le=4)] = 0


class _Rules(RulesConfig, frozen=True, forbid_unknown_fields=True):
    install: tuple[str, ...] = ()


class _Coordinator(msgspec.Struct, forbid_unknown_fields=True):
    mode: str | None = None
    decryption_quota: float = 0.5
    protocols: list[str] = []
    organisation: str | None = None


class _Analyst(msgspec.Struct, forbid_unknown_fields=True):
    pass


def load(path: str | Path) -> FederationConfig:
    """Read and check a federation file; one member's own may leave the others out. Raises ConfigError."""
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. A federation file is a TOML file; see the README.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    return parse(text, path)


def parse(text: str, path: Path) -> FederationConfig:
    """Check the text of a federation file that lies at `path`; relative paths in it resolve against its folder."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at the end, line {len(text.splitlines())}"
        raise ConfigError(f"{path}: not valid TOML: {str(error).replace('at end of document', end)}") from None
    return _Reader(path, text, content).federation()


class _Reader:
    def __init__(self, path: Path, text: str, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content
        self._lines = lines_of(text)

    def federation(self) -> FederationConfig:
        self._known((), self.content, ("federation", "party", "coordinator", "analyst"))
        if "federation" not in self.content:
            self.fail((), 'the section [federation] is missing; it needs at least hub = "tcp://127.0.0.1:0".')
        top = self._section(("federation",), _Federation)
        loopback = self._loopback(top.hub)
        coordinator = self._coordinator(top.coordinator, loopback)
        parties = {name: self._party(name, loopback, coordinator.decryption_quota) for name in self._names(("party",))}
        analysts = tuple(self._names(("analyst",))) or ("analyst",)
        for name in analysts:
            if "analyst" in self.content:
                self._section(("analyst", name), _Analyst)
        self._distinct(coordinator.name, parties, analysts)
        self._accepted(coordinator, parties, analysts)
        return FederationConfig(
            path=self.path,
            name=top.name or self.path.stem,
            hub=top.hub,
            coordinator=coordinator,
            parties=parties,
            analysts=analysts,
        )

    def _loopback(self, hub: str) -> bool:
        where = ("federation", "hub")
        url = urlsplit(hub)
        try:
            port = url.port
        except ValueError:
            port = None
        if url.scheme != "tcp" or not url.hostname or port is None or url.path:
            self.fail(where, f'{hub!r} is not an address; write "tcp://HOST:PORT", with port 0 for any free one.')
        return is_loopback(hub)

    def _coordinator(self, name: str, loopback: bool) -> CoordinatorConfig:
        self._name(("federation", "coordinator"), name)
        if name in self.content.get("party", {}):
            self.fail(
                ("federation", "coordinator"),
                f"{name!r} is a party. The coordinator holds the secret key and must not hold tables too; give it a "
                "name of its own.",
            )
        section = _Coordinator()
        if "coordinator" in self.content:
            section = self._section(("coordinator",), _Coordinator)
        if not 0 < section.decryption_quota <= 10:
            self.fail(("coordinator", "decryption_quota"), "must be above 0 and at most 10 (a multiple of rows).")
        # without data or keys in its kernel the coordinator may be open by default, but only towards this machine
        mode = section.mode if section.mode is not None else "open" if loopback else "protocol-only"
        return CoordinatorConfig(
            name=name,
            mode=self._mode(("coordinator", "mode"), mode, loopback),
            decryption_quota=section.decryption_quota,
            protocols=self._protocols(("coordinator", "protocols"), section.protocols),
            organisation=section.organisation or "",
        )

    def _party(self, name: str, loopback: bool, quota: float) -> PartyConfig:
        at = ("party", name)
        section = self._section(at, _Party)
        for index, what in enumerate(section.release):
            if what not in RELEASES:
                self.fail((*at, "release"), f"item {index + 1}, {what!r}, is not one of {_listed(RELEASES)}.")
        mode = self._mode((*at, "mode"), section.mode or ("protocol-only" if loopback else "guarded"), loopback)
        # cells of an open party read all rows anyway
        defaults = {"decrypted_per_row": quota, "cell_columns": mode == "open"}
        install, rules = self._rules((*at, "protocols"), section.protocols, defaults)
        if section.approval and mode == "open":
            self.fail((*at, "approval"), 'a party in mode "open" runs every cell without asking anybody.')
        return PartyConfig(
            name=name,
            mode=mode,
            approval=section.approval,
            release=tuple(section.release),
            protocols=install,
            rules=rules,
            accept_coordinator_at=self._organisations((*at, "accept_coordinator_at"), section.accept_coordinator_at),
            dask="" if section.dask is None else self._dask((*at, "dask"), section.dask),
            sandbox=self._sandbox((*at, "sandbox"), section.sandbox, mode),
            limits=self._limits((*at, "limits")),
            tables={table: self._table((*at, "tables", table), table) for table in self._names((*at, "tables"))},
            guard=self._guard((*at, "guard")) if section.guard else GuardConfig(),
            analysts=self._permits((*at, "analysts"), loopback),
            online={who: self._online((*at, "online", who), section) for who in self._names((*at, "online"))},
        )

    def _rules(
        self, at: tuple[str, ...], found: list[str] | dict[str, Any], defaults: dict[str, Any]
    ) -> tuple[tuple[str, ...], RulesConfig]:
        """What is installed, and the rules; a section within them is about the protocol that it names.

        defaults : where the section says nothing: the decryption quota is what this file has the coordinator keep.
        """
        if isinstance(found, list):
            return self._protocols(at, found), RulesConfig(**defaults)
        general = {key: value for key, value in found.items() if not isinstance(value, dict)}
        section = self._values(at, {**defaults, **general}, _Rules, "of")
        rules = RulesConfig(**{key: getattr(section, key) for key in RulesConfig.__struct_fields__})
        of = {}
        for name, value in found.items():
            if isinstance(value, dict):
                self._name((*at, name), name)
                own = self._values((*at, name), value, RulesConfig, "of", "allow")
                of[name] = msgspec.structs.replace(rules, **{key: getattr(own, key) for key in value})
        for each in (rules, *of.values()):
            if each.min_ids > each.max_ids:
                self.fail(at, f"min_ids, {each.min_ids}, is above max_ids, {each.max_ids}.")
        return self._protocols((*at, "install"), section.install), msgspec.structs.replace(rules, of=of)

    def _permits(self, at: tuple[str, ...], loopback: bool) -> dict[str, PermitConfig] | None:
        """Closed by default; only on one machine, and where no analyst is named, may everybody do everything."""
        names = self._names(at)
        if loopback and not names and "analysts" not in self.content["party"][at[1]]:
            return None
        permits = {}
        for name in names:
            section = self._section((*at, name), _Permit)
            for key in ("tables", "partners"):
                for each in getattr(section, key):
                    if each != "*" and not _NAME.fullmatch(each):
                        self.fail((*at, name, key), f'{each!r} is neither a name nor "*".')
            permits[name] = PermitConfig(
                tables=tuple(section.tables),
                protocols=tuple(section.protocols),
                partners=tuple(section.partners),
                cells=section.cells,
                runs_a_day=section.runs_a_day,
                decrypted=section.decrypted,
            )
        return permits

    def _online(self, at: tuple[str, ...], party: _Party) -> OnlineConfig:
        section = self._section(at, _Online)
        if at[-1] == at[1]:
            self.fail(at, "a party's own service needs no permit of its own; name the party whose service may ask.")
        if section.table not in party.tables:
            self.fail((*at, "table"), f"{section.table!r} is no table of {at[1]}; it has {_listed(party.tables)}.")
        if not party.tables[section.table].get("id"):
            self.fail((*at, "table"), f'{section.table!r} declares no id by which applicants are known: add id = "…".')
        for model in section.models:
            if model != "*" and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", model):
                self.fail((*at, "models"), f'{model!r} is neither the id of a saved model nor "*".')
        return OnlineConfig(section.table, tuple(section.models), section.requests_a_day, section.reasons)

    def _mode(self, at: tuple[str, ...], mode: str, loopback: bool) -> Mode:
        if mode not in MODES:
            self.fail(at, f"{mode!r} is not a mode; allowed are {_listed(MODES)}.")
        if mode == "guarded":
            if at[0] == "coordinator":
                self.fail(
                    at, 'a coordinator holds no tables that could be guarded; allowed are "open", "protocol-only".'
                )
            return "guarded"
        if mode == "open":
            if not loopback:
                self.fail(
                    at,
                    '"open" lets analysts read every row, so it is for simulation and teaching on one machine: the '
                    f"hub must be on loopback (tcp://127.0.0.1:0), and it is {self.content['federation']['hub']}.",
                )
            return "open"
        return "protocol-only"

    def _sandbox(self, at: tuple[str, ...], wish: str | None, mode: Mode) -> str:
        if wish is None:
            return "none" if mode == "open" else "auto"
        if wish not in SANDBOXES:
            self.fail(at, f"{wish!r} is no sandbox; allowed are {_listed(SANDBOXES)}.")
        if wish == "none" and mode != "open":
            self.fail(
                at,
                'a kernel without a sandbox can read whatever its agent can; only the mode "open", which promises '
                f"nothing, may have one. Allowed here are {_listed(SANDBOXES[:-1])}.",
            )
        return wish

    def _limits(self, at: tuple[str, ...]) -> LimitsConfig:
        if at[-1] not in self.content["party"][at[1]]:
            return LimitsConfig()
        limits = self._section(at, LimitsConfig)
        for field, least in (("memory_mb", 512), ("cpu_seconds", 10), ("file_mb", 1)):
            if not least <= getattr(limits, field) <= 1 << 20:
                self.fail((*at, field), f"must be from {least} to {1 << 20}.")
        return limits

    def _guard(self, at: tuple[str, ...]) -> GuardConfig:
        section = self._section(at, GuardConfig)
        for key, (least, most) in GUARD_LIMITS.items():
            if not least <= getattr(section, key) <= most:
                self.fail((*at, key), f"must be from {least:g} to {most:g}.")
        return section

    def _roles(self, at: tuple[str, ...], table: _Table) -> dict[str, ColumnConfig]:
        found = {}
        for column, value in table.roles.items():
            where = (*at, column)
            section = _Role(value) if isinstance(value, str) else self._section(where, _Role)
            if section.role not in ROLES:
                self.fail(where, f"{section.role!r} is no role of a column; allowed are {_listed(ROLES)}.")
            ids = [table.id] if isinstance(table.id, str) else table.id or []
            if (column in ids) != (section.role == "id"):
                self.fail(where, 'the table\'s id, and nothing else, has the role "id"; name its columns in id = ….')
            if list(section.cuts) != sorted(set(section.cuts)):
                self.fail((*where, "cuts"), "must rise.")
            if section.cuts and section.role not in ("key", "measure"):
                self.fail((*where, "cuts"), "are for keys and measures.")
            found[column] = ColumnConfig(section.role, tuple(section.cuts))  # type: ignore[arg-type]
        return found

    def _protocols(self, at: tuple[str, ...], entries: Iterable[str]) -> tuple[str, ...]:
        for entry in entries:
            if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", entry):
                self.fail(at, f'{entry!r} does not name a protocol; write "package.module:ATTRIBUTE".')
        return tuple(entries)

    def _dask(self, at: tuple[str, ...], address: str) -> str:
        try:
            url = urlsplit(address)
            port = url.port
        except ValueError:
            url, port = urlsplit(""), None
        if url.scheme not in ("tcp", "tls") or not url.hostname or port is None or url.path:
            self.fail(at, f'{address!r} is not the address of a Dask scheduler; write "tls://HOST:PORT".')
        if url.scheme == "tcp" and not is_loopback(address):
            self.fail(
                at,
                f"{address!r} would send the party's features over the network in plain text, to whoever answers; "
                'write "tls://HOST:PORT", with certificates in Dask\'s own configuration.',
            )
        return address

    def _organisations(self, at: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
        for name in names:
            self._name(at, name)
        return tuple(names)

    def _accepted(
        self, coordinator: CoordinatorConfig, parties: Mapping[str, PartyConfig], analysts: Iterable[str]
    ) -> None:
        """Every other party in this file has to agree that the key lies with one of them."""
        home = coordinator.organisation
        if not home:
            return
        at = ("coordinator", "organisation")
        self._name(at, home)
        if home in (coordinator.name, *analysts):
            self.fail(at, f"{home!r} is no party; name the party whose organisation runs the coordinator.")
        against = [name for name, party in parties.items() if name != home and home not in party.accept_coordinator_at]
        if against:
            self.fail(
                at,
                f"puts the secret key inside {home!r}, and the policy of {', '.join(against)} does not accept it. "
                f"Whoever holds the key and what a party receives can read that: {home} as the party with the label "
                f"reads every score that others compute, row by row; {home} as a party without it reads others' "
                "labels. Have the coordinator run by an organisation that is no party.",
            )

    def _table(self, at: tuple[str, ...], name: str) -> TableConfig:
        section = self._section(at, _Table)
        if (section.path is None) == (section.source is None):
            self.fail(at, 'a table needs either path = "file.csv" (or .parquet) or source = "duckdb:///…" with query.')
        if section.source is not None and not section.query:
            self.fail(at, 'a source needs query = "SELECT …", the rows that make up the table.')
        if section.path is not None and section.query is not None:
            self.fail((*at, "query"), "a query goes with source, not with path.")
        path = None
        if section.path is not None:
            path = self._resolve(section.path)
            if path.suffix.lower() not in (".csv", ".parquet", ".pq"):
                self.fail((*at, "path"), f"{path.name!r} is neither .csv nor .parquet.")
            if not path.is_file():
                self.fail((*at, "path"), f"there is no file {path}.")
        if len(section.separator) != 1:
            self.fail((*at, "separator"), "must be one character.")
        ids = (section.id,) if isinstance(section.id, str) else tuple(section.id or ())
        if section.label is not None and section.label in ids:
            self.fail((*at, "label"), f"{section.label!r} is the id; a column cannot be both.")
        columns = None if section.columns is None else tuple(section.columns)
        for key, wanted in (("id", ids), ("label", (section.label,) if section.label else ())):
            for column in wanted:
                if columns is not None and column not in columns:
                    self.fail((*at, "columns"), f"leaves out {column!r}, which is the table's {key}.")
        return TableConfig(
            name=name,
            path=path,
            source=None if section.source is None else self._source(at, section.source),
            query=section.query,
            id=ids,
            label=section.label,
            columns=columns,
            separator=section.separator,
            roles=self._roles((*at, "roles"), section),
            mock=self._mock((*at, "mock"), section.mock),
        )

    def _mock(
        self, at: tuple[str, ...], ranges: Mapping[str, list[float | str]]
    ) -> dict[str, tuple[float | str, ...]]:
        for column, values in ranges.items():
            numbers = [each for each in values if not isinstance(each, str)]
            if not values or (numbers and (len(values) != 2 or len(numbers) != 2 or numbers[0] > numbers[1])):
                self.fail((*at, column), "write [LEAST, MOST] for numbers, or a list of texts.")
        return {column: tuple(values) for column, values in ranges.items()}

    def _source(self, at: tuple[str, ...], source: str) -> str:
        scheme, colon, rest = source.partition("://")
        if not colon or not re.fullmatch(r"[a-z][a-z0-9_]*", scheme):
            self.fail((*at, "source"), f'{source!r} is not a source; write for example "duckdb:///file.duckdb".')
        if scheme not in ("duckdb", "sqlite"):
            return source
        # as in other tools' URLs: three slashes before a relative path, four before an absolute one
        file = self._resolve(rest.removeprefix("/"))
        if not file.is_file():
            self.fail((*at, "source"), f"there is no file {file}.")
        return f"{scheme}:///{file}"

    def _resolve(self, path: str) -> Path:
        return (self.path.absolute().parent / Path(path).expanduser()).resolve()

    def _distinct(self, coordinator: str, parties: Iterable[str], analysts: Iterable[str]) -> None:
        taken: dict[str, str] = {}
        places = [("federation", "coordinator")] if "coordinator" in self.content["federation"] else [()]
        members = [(places[0], coordinator)]
        members += [(("party", name), name) for name in parties]
        members += [(("analyst", name), name) for name in analysts]
        for at, name in members:
            # folders of members must differ on file systems that ignore case
            if name.casefold() in taken:
                self.fail(at, f"the name {name!r} is already that of another member; every member needs its own.")
            taken[name.casefold()] = name

    def _names(self, at: tuple[str, ...]) -> list[str]:
        """The names of the sections directly under `at`, each checked."""
        section: Any = self.content
        for key in at:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        if not isinstance(section, dict):
            self.fail(at, f"must hold sections, like [{'.'.join(at)}.NAME].")
        for name, value in section.items():
            self._name((*at, name), name)
            if not isinstance(value, dict):
                self.fail((*at, name), f"must be a section, [{'.'.join((*at, name))}].")
        return list(section)

    def _name(self, at: tuple[str, ...], name: str) -> None:
        if not _NAME.fullmatch(name):
            self.fail(at, f"{name!r} is not a name: a letter, then at most 63 letters, digits, '_', '.' or '-'.")
        is_member = at[0] != "party" or len(at) == 2
        if is_member and name.casefold() in _RESERVED:
            self.fail(at, f"{name!r} is taken: it means {_RESERVED[name.casefold()]}.")

    def _section(self, at: tuple[str, ...], kind: type[S]) -> S:
        section: Any = self.content
        for key in at:
            section = section[key]
        if not isinstance(section, dict):
            self.fail(at, f"must be a section, [{'.'.join(at)}].")
        return self._values(at, section, kind)

    def _values(self, at: tuple[str, ...], section: Mapping[str, Any], kind: type[S], *without: str) -> S:
        self._known(at, section, [name for name in kind.__struct_fields__ if name not in without])
        for field in msgspec.structs.fields(kind):
            if field.name not in section:
                if field.required:
                    self.fail(at, f"the key {field.name!r} is missing.")
                continue
            try:
                msgspec.convert(section[field.name], known(field.type))
            except msgspec.ValidationError as error:
                said = str(error).replace("`", "").replace(" | null", "").partition(" - at ")[0]
                self.fail((*at, field.name), f"{said[0].lower()}{said[1:]}.")
        return msgspec.convert(section, known(kind))

    def _known(self, at: tuple[str, ...], section: Mapping[str, Any], allowed: Iterable[str]) -> None:
        allowed = tuple(allowed)
        for key in section:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                known = f"allowed are {_listed(allowed)}" if allowed else "no keys are allowed"
                self.fail((*at, key), f"unknown key; {known} here.{hint}")

    def fail(self, at: tuple[str, ...], message: str) -> NoReturn:
        line = next((self._lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in self._lines), None)
        where = f"{self.path}, line {line}" if line is not None else f"{self.path}"
        key = f"{'.'.join(at)}: " if at else ""
        raise ConfigError(f"{where}: {key}{message}")


def is_loopback(address: str) -> bool:
    """Whether "tcp://HOST:PORT" stays on this machine."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
