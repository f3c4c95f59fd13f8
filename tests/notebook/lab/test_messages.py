"""What the page and the kernel say to each other."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from fednb.notebook.lab import messages as lab
from fednb.notebook.lab.channel import Channel


def test_what_the_kernel_tells_is_json_with_kind_and_version() -> None:
    news = lab.CellNews(cell="c1", places=[lab.Place(member="bank", state="running", seconds=1.5)])
    got = json.loads(json.dumps(lab.told(news)))
    assert (got["kind"], got["v"], got["places"][0]["member"]) == ("cell", lab.VERSION, "bank")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"kind": "hello"},
        {"kind": "hello", "v": 2},
        {"kind": "hello", "v": 1, "run": "r"},
        {"kind": "shutdown", "v": 1},
        {"kind": "cancel", "v": 1},
        {"kind": "cancel", "v": 1, "run": 5},
        {"kind": "cancel", "v": 1, "run": "r" * 201},
    ],
)
def test_what_a_page_may_not_ask_is_no_question(data: object) -> None:
    with pytest.raises(ValueError):
        lab.asked(data)


def test_what_a_page_may_ask_is_understood() -> None:
    assert lab.asked({"kind": "cancel", "v": 1, "run": "r1"}) == lab.Cancel(run="r1")
    assert lab.asked({"kind": "hello", "v": 1}) == lab.HelloPage()


class Comm:
    """What the channel needs of one."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.hear: Any = None

    def send(self, data: dict[str, Any]) -> None:
        self.sent.append(data)

    def on_msg(self, callback: Any) -> None:
        self.hear = callback


def test_a_strange_message_is_logged_once_and_changes_nothing(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    comm = Comm()
    channel = Channel(world.session, comm)
    try:
        with caplog.at_level(logging.WARNING, logger="fednb.notebook"):
            for _ in range(3):
                comm.hear({"content": {"data": {"kind": "prophecy", "v": 1}}})
            comm.hear({"content": {}})
        assert [record.message for record in caplog.records if "prophecy" in record.message] == [
            caplog.records[0].message
        ]
    finally:
        channel.close()
