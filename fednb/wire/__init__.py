"""How members talk: typed messages, sealed conversations between two members, and the hub that relays them."""

from __future__ import annotations

WIRE_VERSION = 1  # of the frames and the handshake; members and hubs that differ refuse each other, naming both
