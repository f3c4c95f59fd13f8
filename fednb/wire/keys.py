"""Who is who: a member's own keys on disk, and the roster of everybody's public ones.

A member has two key pairs: CURVE to be let in by the hub, Ed25519 to sign the hello of every sealed conversation.
Both public halves stand in each member's roster. They are compared there, by fingerprint, by people, and
never taken from the hub: whoever runs it may be curious.

A member's home is a folder of mode 0700:

    identity.json   0600   both secret keys
    roster.json            every member's name, kind and public keys, its own too
    hub                    the hub's address
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import zmq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from zmq.utils import z85

from fednb.errors import ConfigError
from fednb.typed import known

Kind = Literal["party", "coordinator", "analyst", "hub"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Successor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys that will take the place of a member's present ones; until then both are good."""

    curve: str
    verify: str
    until: float  # unix seconds, when the present ones die


class PublicIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What everybody may know of a member."""

    name: str
    kind: Kind
    curve: str  # CURVE public key, Z85
    verify: str  # Ed25519 public key, hex
    next: Successor | None = None  # while the member changes its keys

    def __post_init__(self) -> None:
        _check_name(self.name)
        for curve, verify in self.keys:
            try:
                if len(z85.decode(curve)) != 32 or len(bytes.fromhex(verify)) != 32:
                    raise ValueError
            except (ValueError, KeyError, UnicodeError):
                raise ConfigError(
                    f"the public keys of {self.name!r} are malformed: ask its owner for them again"
                ) from None

    @property
    def successor(self) -> PublicIdentity | None:
        """This member with its next keys only."""
        return PublicIdentity(self.name, self.kind, self.next.curve, self.next.verify) if self.next else None

    @property
    def keys(self) -> frozenset[tuple[str, str]]:
        """Both pairs of public keys, or the only one."""
        present = {(self.curve, self.verify)}
        return frozenset(present | {(self.next.curve, self.next.verify)} if self.next else present)

    @property
    def over(self) -> bool:
        """Whether the present keys have died."""
        return self.next is not None and time.time() >= self.next.until

    @property
    def curve_key(self) -> bytes:
        """32 bytes, as ZAP shows them."""
        return z85.decode(self.curve)

    @property
    def fingerprint(self) -> str:
        """Both keys in 120 bits, for two people to compare over the telephone."""
        return _fingerprint(self.curve_key, bytes.fromhex(self.verify))

    def check_fingerprint(self, heard: str) -> None:
        """Raises ConfigError unless this is what people read out for these keys."""
        if "".join(heard.upper().replace("-", "").split()) != self.fingerprint.replace("-", ""):
            raise ConfigError(
                f"the fingerprint is not that of the keys which came for {self.name}. Compare again by telephone, with "
                "`fednb members HOME card` at the other end; if it stays different, somebody put in other keys."
            )

    @property
    def present(self) -> PublicIdentity:
        """This member with its present keys only."""
        return self if self.next is None else PublicIdentity(self.name, self.kind, self.curve, self.verify)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this member signed `data`, with keys that are good now."""
        for key in ([] if self.over else [self.verify]) + ([self.next.verify] if self.next else []):
            try:
                Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, data)
            except (InvalidSignature, ValueError):
                continue
            return True
        return False


class _Secrets(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    curve_public: str
    curve_secret: str
    signing_seed: str


class Identity:
    """A member's secret keys. Shows its name and fingerprint, and nothing else."""

    __slots__ = ("_curve_secret", "_signing", "curve_public", "name", "verify_key")

    def __init__(self, name: str, curve_public: bytes, curve_secret: bytes, signing_seed: bytes) -> None:
        _check_name(name)
        self.name = name
        self.curve_public = curve_public  # Z85
        self._curve_secret = curve_secret
        self._signing = Ed25519PrivateKey.from_private_bytes(signing_seed)
        self.verify_key = self._signing.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, fingerprint {self.fingerprint})"

    def __reduce__(self) -> str:
        raise TypeError("an identity holds secret keys: it is never copied into another process")

    @classmethod
    def generate(cls, name: str) -> Identity:
        """New keys, in memory only."""
        public, secret = zmq.curve_keypair()
        return cls(name, public, secret, os.urandom(32))

    @classmethod
    def create(cls, folder: Path, name: str, at: str = "identity.json") -> Identity:
        """New keys, in `folder` (made with mode 0700). Never replaces keys that exist."""
        identity = cls.generate(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder)
        path = folder / at
        content = msgspec.json.encode(
            _Secrets(
                name,
                identity.curve_public.decode(),
                identity._curve_secret.decode(),
                identity._signing.private_bytes_raw().hex(),
            )
        )
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigError(f"{path} exists: {name} has keys already, and others know it by them") from None
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return identity

    @classmethod
    def load(cls, folder: Path, at: str = "identity.json") -> Identity:
        """The keys in `folder`; refused when anybody else on this machine could read them."""
        path = folder / at
        if not path.exists():
            raise ConfigError(f"{folder} is not a member's home: it holds no {at}")
        _check_private(folder)
        _check_private(path)
        try:
            secrets = msgspec.json.decode(path.read_bytes(), type=known(_Secrets))
            return cls(
                secrets.name,
                secrets.curve_public.encode(),
                secrets.curve_secret.encode(),
                bytes.fromhex(secrets.signing_seed),
            )
        except (msgspec.MsgspecError, ValueError):  # its text might quote the file
            raise ConfigError(f"{path} is damaged: restore it from a backup, or enrol this member anew") from None

    @property
    def fingerprint(self) -> str:
        return _fingerprint(z85.decode(self.curve_public), self.verify_key)

    def public(self, kind: Kind) -> PublicIdentity:
        """What goes into rosters."""
        return PublicIdentity(self.name, kind, self.curve_public.decode(), self.verify_key.hex())

    def fits(self, member: PublicIdentity) -> bool:
        """Whether these are the present or the next keys of `member`."""
        mine = self.public(member.kind)
        return mine in (member.present, member.successor)

    def sign(self, data: bytes) -> bytes:
        """64 bytes, Ed25519."""
        return self._signing.sign(data)

    def unlock(self, socket: zmq.Socket[bytes]) -> None:
        """Give a ZeroMQ socket this member's CURVE keys, without handing them out."""
        socket.curve_publickey = self.curve_public
        socket.curve_secretkey = self._curve_secret


class Roster(Mapping[str, PublicIdentity]):
    """Everybody's public identity, by name. There is one hub."""

    def __init__(self, members: Iterable[PublicIdentity]) -> None:
        members = list(members)
        self._members = {member.name: member for member in members}
        keys = [*members, *(member.successor for member in members if member.successor)]
        self._by_key = {each.curve_key: self._members[each.name] for each in keys}
        once = len(self._members) == len(members)
        if not once or not len(self._by_key) == len({each.verify for each in keys}) == len(keys):
            raise ConfigError("a roster names a member or a key twice")
        if sum(member.kind == "hub" for member in members) != 1:
            raise ConfigError("a roster needs exactly one hub")

    def __getitem__(self, name: str) -> PublicIdentity:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"Roster({', '.join(f'{member.name}: {member.kind}' for member in self._members.values())})"

    @property
    def hub(self) -> PublicIdentity:
        return next(member for member in self._members.values() if member.kind == "hub")

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        """Names, in the roster's order."""
        return tuple(member.name for member in self._members.values() if member.kind == kind)

    def by_curve_key(self, key: bytes) -> PublicIdentity | None:
        """Whose CURVE key (32 bytes) this is, if it is good now."""
        member = self._by_key.get(key)
        return None if member is not None and member.over and key == member.curve_key else member

    def save(self, path: Path) -> None:
        write_whole(path, msgspec.json.format(msgspec.json.encode({"members": list(self._members.values())})))

    @classmethod
    def load(cls, path: Path) -> Roster:
        class File(msgspec.Struct, forbid_unknown_fields=True):
            members: list[PublicIdentity]

        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=known(File)).members)
        except FileNotFoundError:
            raise ConfigError(
                f"{path} is missing: a member's home holds the roster that it was enrolled with"
            ) from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path}: {error}") from None


@dataclass(frozen=True)
class MemberHome:
    """A member's folder: its identity, the roster, and where the hub is."""

    folder: Path
    identity: Identity
    roster: Roster
    hub_address: str  # "" until somebody knows it

    def __post_init__(self) -> None:
        mine = self.roster.get(self.identity.name)
        if mine is None:
            raise ConfigError(f"{self.folder}: {self.identity.name!r} is not on its own roster")
        if not self.identity.fits(mine):
            raise ConfigError(f"{self.folder}: the roster has other keys for {self.identity.name!r} than identity.json")

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def kind(self) -> Kind:
        return self.roster[self.name].kind

    @classmethod
    def load(cls, folder: Path) -> MemberHome:
        identity = Identity.load(folder)
        address = folder / "hub"
        return cls(
            folder,
            identity,
            Roster.load(folder / "roster.json"),
            address.read_text(encoding="utf-8").strip() if address.exists() else "",
        )

    @classmethod
    def write(cls, folder: Path, identity: Identity, roster: Roster, hub_address: str = "") -> MemberHome:
        """Put the roster (and the hub's address) beside an identity."""
        home = cls(folder, identity, roster, hub_address)
        roster.save(folder / "roster.json")
        return home.with_hub(hub_address) if hub_address else home

    def with_hub(self, address: str) -> MemberHome:
        """The same home, which now remembers where the hub is."""
        write_whole(self.folder / "hub", address.encode() + b"\n")
        return MemberHome(self.folder, self.identity, self.roster, address)


def enrol_all(root: Path, kinds: Mapping[str, Kind], hub_address: str = "") -> dict[str, MemberHome]:
    """Homes `root/<name>` of a federation whose members all live on this machine; existing keys are kept."""
    identities = {
        name: Identity.load(root / name)
        if (root / name / "identity.json").exists()
        else Identity.create(root / name, name)
        for name in kinds
    }
    roster = Roster(identities[name].public(kind) for name, kind in kinds.items())
    return {name: MemberHome.write(root / name, identities[name], roster, hub_address) for name in kinds}


def _fingerprint(curve: bytes, verify: bytes) -> str:
    digest = hashlib.blake2b(b"fednb identity" + curve + verify, digest_size=15).digest()
    text = base64.b32encode(digest).decode()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a member: a letter first, then letters, digits and _ . - (64 characters at most)"
        )


def _check_private(path: Path) -> None:
    """Raises ConfigError, with what to run, unless `path` belongs to this user and to nobody else."""
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user (uid {status.st_uid}): a member's keys are its own")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        wanted = "700" if path.is_dir() else "600"
        raise ConfigError(f"{path} is open to other users (mode {mode:04o}). Run: chmod {wanted} {path}")


def write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing: readers never see half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
