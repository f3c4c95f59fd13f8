"""The page on protocols: its toy runs as printed, and its tables name every built-in protocol."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fednb.protocols import BUILT_IN, lookup

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")


def test_the_toy_protocol_runs_as_printed() -> None:
    toy, trial = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert len([line for line in toy.splitlines() if line.strip()]) <= 36
    names: dict[str, Any] = {"__name__": "toy"}
    exec(compile(toy, "toy", "exec", dont_inherit=True), names)
    exec(compile(trial, "trial", "exec", dont_inherit=True), names)
    assert lookup("ring_sum", {"ring_sum": names["SUM"]}) is names["SUM"]
    assert names["out"]["bank"].public == {"total": 14.5}


def test_the_toy_shows_nobody_another_ones_numbers() -> None:
    toy, _ = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    names: dict[str, Any] = {"__name__": "toy"}
    exec(compile(toy, "toy", "exec", dont_inherit=True), names)
    import numpy as np

    from fednb.wire.loopback import play

    seen: list[int] = []

    class Ear:
        def __init__(self, link: Any) -> None:
            self.me, self.cast, self.send, self._link = link.me, link.cast, link.send, link

        def recv(self, sender: str, kind: Any) -> Any:
            message = self._link.recv(sender, kind)
            seen.append(getattr(message, "masked", 0))
            return message

    def role(name: str) -> Any:
        data = names["Dataset"](X=np.array([[1.0]]))
        return lambda link: names["starter" if name == "bank" else "member"](Ear(link), data, None, None)

    play({name: role(name) for name in ("bank", "agency")}, {"starter": ("bank",), "member": ("agency",)})
    assert max(seen) > 2**40  # masked


def test_every_protocol_that_everybody_has_is_described() -> None:
    for name, protocol in BUILT_IN.items():
        assert f"`{name}`" in PAGE
        assert protocol.learns and protocol.name == name
