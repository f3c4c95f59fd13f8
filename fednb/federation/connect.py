"""Connecting to a federation that runs: find the analyst's home, dial the hub, find the coordinator."""

from __future__ import annotations

import os

from fednb.errors import ConfigError
from fednb.federation import profile as profiles
from fednb.federation.client import Federation
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome


def connect(profile: str | os.PathLike[str] | None = None) -> Federation:
    """Connect to a running federation.

    Parameters
    ----------
    profile : a federation file that `fednb up` runs on this machine, an analyst's home folder, the name of a
        federation, or None: what `$FEDNB_PROFILE` names, else the federation that `fednb up` started last.

    Raises NotConnected when there is nothing to connect to, ConfigError when the profile cannot be used, and LinkError
    when the hub does not answer or does not know this member.
    """
    home = MemberHome.load(profiles.find(profile))
    if home.kind != "analyst":
        raise ConfigError(f"{home.name} is a {home.kind}; connect with the home of an analyst.")
    (coordinator,) = home.roster.of_kind("coordinator")
    return Federation(DealerEndpoint(home), coordinator)
