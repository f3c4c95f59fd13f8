"""The federation file: who takes part, where the hub listens, which tables each party holds, what its owner allows."""

from __future__ import annotations

from fednb.config.lines import placed
from fednb.config.reader import is_loopback, load, parse
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
    Role,
    RulesConfig,
    TableConfig,
)

__all__ = [
    "MODES",
    "RELEASES",
    "ROLES",
    "SANDBOXES",
    "ColumnConfig",
    "CoordinatorConfig",
    "FederationConfig",
    "GuardConfig",
    "LimitsConfig",
    "Mode",
    "OnlineConfig",
    "PartyConfig",
    "PermitConfig",
    "Role",
    "RulesConfig",
    "TableConfig",
    "is_loopback",
    "load",
    "parse",
    "placed",
]
