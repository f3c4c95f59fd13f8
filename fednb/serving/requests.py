"""What a request may say, for one model: strict JSON with just the fields that the model knows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from fednb.errors import DataError
from fednb.federation.columns import BETWEEN
from fednb.typed import known

MOST_BYTES = 1 << 16

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200, description="the applicant's id, as tables write it")]
Ids = Annotated[list[Id], msgspec.Meta(min_length=1, max_length=10, description="one that lies in several columns")]


class Wrong(DataError):
    """A request that is not as the schema says: `field`, as "features.income"."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


Text = Annotated[str, msgspec.Meta(max_length=200)]
KINDS: dict[str, Any] = {"number": float, "text": Text, "number or null": float | None, "text or null": Text | None}


def schema_of(features: Mapping[str, str], table: str | None) -> type[msgspec.Struct]:
    """The struct of one request: `id`, and `features` by name and kind; a table may have these instead."""
    places = {f"f{k}": name for k, name in enumerate(features)}
    fields = [(place, KINDS[features[name]]) for place, name in places.items()]
    Features = msgspec.defstruct(
        "Features", fields, forbid_unknown_fields=True, kw_only=True, rename=places, frozen=True
    )
    own: tuple[str, Any] | tuple[str, Any, Any] = ("features", Features)
    if table is not None:
        own = ("features", Features | None, None)
    whole = [("id", Id | Ids), own]
    return msgspec.defstruct("Applicant", whole, forbid_unknown_fields=True, kw_only=True, frozen=True)


def read(body: bytes, kind: type[msgspec.Struct]) -> tuple[str, dict[str, float | str | None] | None]:
    """The id and the features of a request. Raises Wrong, which names the field and never quotes a value."""
    try:
        json.loads(body, object_pairs_hook=_once_each, parse_constant=_no_constant)
        found: Any = msgspec.json.decode(body, type=known(kind))
    except Wrong:
        raise
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from None
    except (ValueError, RecursionError):
        raise Wrong("the body is not JSON in UTF-8.") from None
    id = found.id if isinstance(found.id, str) else BETWEEN.join(found.id)
    if found.features is None:
        return id, None
    values = msgspec.to_builtins(found.features)
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Wrong(f"features.{name}: the number is too large.", f"features.{name}")
    return id, values


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Wrong("a name stands twice in the same object; which value is meant, nobody can tell.")
    return found


def _no_constant(name: str) -> None:
    raise Wrong("NaN and Infinity are no JSON; a value that is missing is null, where the model takes that.")


def _wrong(said: str) -> Wrong:
    """In words for whoever writes the client."""
    text, _, path = said.partition(" - at ")
    field = path.strip("`").removeprefix("$").removeprefix(".")
    inside = re.search(r"field `(.*)`", text)
    name = ".".join(filter(None, [field, inside[1] if inside else ""]))
    if "unknown field" in text:
        return Wrong(f"{name}: the model knows no such field.", name)
    if "missing required field" in text:
        return Wrong(f"{name} is missing.", name)
    if "got `null`" in text:
        return Wrong(f"{field}: a value is missing, and the model has no place for missing values.", field)
    if "Expected `str" in text and field.startswith("features."):
        return Wrong(f"{field}: text is expected, a category as it stands in the tables.", field)
    if "float" in text and "got" in text:
        return Wrong(f"{field}: a number is expected; categories are coded as they were for training.", field)
    return Wrong(f"{field or 'the body'}: {text.replace('`', '')}.", field)
