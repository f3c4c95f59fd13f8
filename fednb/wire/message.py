"""The base of everything that crosses between two members."""

from __future__ import annotations

from typing import ClassVar, dataclass_transform

import msgspec

from fednb.wire.disclosure import Disclosure


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))  # for type checkers: subclasses are frozen
class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=True):
    """A typed message. Subclass it, give every field a type, and say its unit in a comment.

    Fields may be scalars, str, bytes, lists, dicts with str keys, other structs, `numpy.ndarray` (travels
    as a frame of its own) and types that speak `to_wire`/`from_wire` (see `codec`). The tag is the class name.
    What a role sends to another in a run declares what it `discloses`.
    """

    discloses: ClassVar[Disclosure | None] = None
