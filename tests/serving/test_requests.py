"""What passes the door: the schema of one model, strict JSON, sizes, tokens; without any member behind it."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from fednb.errors import ConfigError, FednbError, LinkTimeout, PeerLost
from fednb.federation.online_words import Figure, OnlineScored, OnlineServing, OnlineState
from fednb.models import saved
from fednb.policy.audit import AuditLog
from fednb.serving import requests
from fednb.serving.deployed import Deployed
from fednb.serving.http import app_of
from fednb.serving.openapi import Model
from fednb.serving.run import Options, run
from fednb.serving.service import Rules, Service
from fednb.wire.keys import enrol_all

CARD = saved.SavedCard(
    params={},
    run="c0ffee",
    label="bank.default",
    features={"bank": ["income", "PAY 0"], "agency": ["delay"]},
    seals={"bank": "1", "agency": "2"},
    base=600.0,
    points={},
    bins={},
    overrides=[],
)
OWN = saved.SavedOwn(
    params={}, run="0e0e", label="bank.default", features={"bank": ["income", "age"]}, seals={"bank": "3"},
    coef=[1.0, 2.0], intercept=0.0, rows=100,
)  # fmt: skip
GOOD = {"id": "S 1", "features": {"income": 1, "PAY 0": None, "age": 40.5, "sector": "build"}}
KINDS = {"income": "number or null", "PAY 0": "number or null", "sector": "text or null", "age": "number"}


MODEL = Model(
    kind="Scorecard", version="c0ffee", checksum="", label="bank.default", parties={"bank": 2, "agency": 1},
    features=KINDS, meaning="probability", fallback=None, falls_back_on=[], overrides=[], saved_with="1",
)  # fmt: skip


class Agent:
    """Says what a test wants, and remembers what it was asked."""

    def __init__(self, says: Callable[[], OnlineScored]) -> None:
        self.says, self.asked = says, list[Any]()

    def begin(self) -> OnlineServing:
        return OnlineServing("0", "probability")

    def score(self, id: str, features: Any, seconds: float) -> OnlineScored:
        self.asked.append((id, features))
        return self.says()

    def state(self) -> OnlineState:
        return OnlineState(open=False, cause="missing", why="agency is down")

    def close(self) -> None: ...


def good() -> OnlineScored:
    figure = Figure(0.25, 612.0, {"bank": [2], "agency": [1]}, {"bank": 1, "agency": 0}, ["PAY 0"])
    return OnlineScored(federated=figure, fallback=Figure(0.5), run="d00d")


class Door:
    """Applications over real HTTP, as long as a test goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[tuple[uvicorn.Server, threading.Thread, socket.socket, httpx.Client]] = []

    def __call__(
        self, says: Callable[[], OnlineScored] = good, *, table: str | None = None, token: str = "", **rules: Any
    ) -> tuple[httpx.Client, Agent]:
        agent, deployed = Agent(says), Deployed("bank", CARD, OWN)
        log = AuditLog(self.folder / "scores", "bank")
        service = Service(deployed, agent, log, Rules(**rules))  # type: ignore[arg-type]
        app = app_of(service, table, MODEL, token=token, hosts=("127.0.0.1", "localhost"))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=20)
        self._running.append((server, thread, listening, client))
        return client, agent

    def close(self) -> None:
        for server, thread, listening, client in self._running:
            client.close()
            server.should_exit = True
            thread.join(20)
            listening.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path)
    yield made
    made.close()


def test_a_good_request_reaches_the_agent_and_its_answer_says_it_all(door: Door) -> None:
    http, agent = door()
    answer = http.post("/v1/score", json=GOOD)
    assert answer.status_code == 200 and agent.asked == [("S 1", GOOD["features"])]
    said = answer.json()
    assert (said["status"], said["score"], said["points"]) == ("federated", 0.25, 612.0)
    assert said["reasons"] == [
        {"party": "bank", "code": 2, "feature": "PAY 0"},
        {"party": "agency", "code": 1, "feature": "delay"},
    ]
    assert said["unseen"] == ["PAY 0"] and said["scores"] == {"federated": 0.25, "fallback": 0.5}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (GOOD | {"more": 1}, "more", "knows no such field"),
        ({"id": "S 1"}, "features", "is missing"),
        (GOOD | {"id": ""}, "id", "length >= 1"),
        (GOOD | {"id": 7}, "id", "Expected str"),
        (GOOD | {"id": ["DE", ""]}, "id[1]", "length >= 1"),
        (GOOD | {"id": []}, "id", "length >= 1"),
        (GOOD | {"id": "x" * 201}, "id", "length <= 200"),
        (GOOD | {"features": GOOD["features"] | {"wages": 1}}, "features.wages", "knows no such field"),  # type: ignore
        (GOOD | {"features": {"income": 1}}, "features.PAY 0", "is missing"),
        (GOOD | {"features": GOOD["features"] | {"age": None}}, "features.age", "no place for missing"),  # type: ignore
        (GOOD | {"features": GOOD["features"] | {"income": "much"}}, "features.income", "number is expected"),  # type: ignore
        (GOOD | {"features": GOOD["features"] | {"age": True}}, "features.age", "number is expected"),  # type: ignore
        (GOOD | {"features": GOOD["features"] | {"sector": 3}}, "features.sector", "text is expected"),  # type: ignore
        (GOOD | {"features": []}, "features", "Expected object"),
        ([], "", "Expected object"),
    ],
)
def test_what_does_not_fit_the_model_is_named_and_nothing_is_asked(
    door: Door, body: Any, field: str, words: str
) -> None:
    http, agent = door()
    answer = http.post("/v1/score", json=body)
    assert answer.status_code == 422 and answer.json()["field"] == field, answer.text
    assert words in answer.json()["error"] and "much" not in answer.text
    assert agent.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"id": "a", "id": "b", "features": {}}',
        json.dumps(GOOD).replace("40.5", "NaN").encode(),
        json.dumps(GOOD).replace("40.5", "1e999").encode(),
        json.dumps(GOOD).encode("utf-16"),
        b'{"id": "\xff"}',
        b"[" * 60_000,
        b'{"id": "a", "features": ' + b'{"a":' * 8_000 + b"1" + b"}" * 8_000 + b"}",
    ],
)
def test_what_is_not_strict_json_is_refused(door: Door, body: bytes) -> None:
    http, agent = door()
    answer = http.post("/v1/score", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and agent.asked == []


def test_a_body_has_a_type_and_a_size(door: Door) -> None:
    http, agent = door()
    assert http.post("/v1/score", content=json.dumps(GOOD)).status_code == 415
    plain = {"content-type": "text/plain"}  # which any page may send from a browser on this machine
    assert http.post("/v1/score", content=json.dumps(GOOD), headers=plain).status_code == 415
    large = json.dumps(GOOD) + " " * requests.MOST_BYTES
    declared = {"content-type": "application/json"}
    assert http.post("/v1/score", content=large, headers=declared).status_code == 413
    chunks = (b" " * 1000 for _ in range(100))
    assert http.post("/v1/score", content=chunks, headers=declared).status_code == 413
    assert http.post("/v1/score", json=GOOD, headers={"host": "rebound.example"}).status_code == 400
    assert agent.asked == []


def test_without_the_token_nothing_is_told_but_that_the_process_lives(door: Door) -> None:
    http, agent = door(token="s" * 32)
    for headers in ({}, {"authorization": "Bearer t"}, {"authorization": "s" * 32}):
        for path in ("/v1/model", "/ready", "/openapi.json", "/docs", "/nothing"):
            answer = http.get(path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert http.post("/v1/score", json=GOOD, headers=headers).status_code == 401
    assert agent.asked == [] and http.get("/health").json() == {"alive": True}
    known = {"authorization": "Bearer " + "s" * 32}
    assert http.post("/v1/score", json=GOOD, headers=known).status_code == 200
    assert http.get("/openapi.json", headers=known).json()["security"] == [{"token": []}]


def test_a_table_makes_features_optional(door: Door) -> None:
    http, agent = door(table="loans")
    assert http.post("/v1/score", json={"id": "S 1"}).status_code == 200
    assert http.post("/v1/score", json=GOOD).status_code == 200
    assert http.post("/v1/score", json={"id": ["DE", "1"]}).status_code == 200
    assert agent.asked == [("S 1", None), ("S 1", GOOD["features"]), ("DE\x1f1", None)]


def test_the_documents_describe_this_model_and_load_nothing_from_elsewhere(door: Door) -> None:
    http, _ = door()
    found = http.get("/openapi.json").json()
    features = found["components"]["schemas"]["Features"]
    assert set(features["properties"]) == set(features["required"]) == set(KINDS)
    assert features["additionalProperties"] is False
    assert features["properties"]["PAY 0"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html") and "POST /v1/score" in page.text
    assert "<script" not in page.text and "//" not in page.text.replace("/docs", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]


def raising(error: Exception) -> Callable[[], OnlineScored]:
    def say() -> OnlineScored:
        raise error

    return say


@pytest.mark.parametrize(
    ("says", "code", "status", "cause"),
    [
        (lambda: OnlineScored(cause="absent", why="unknown there", fallback=Figure(0.5)), 200, "fallback", "absent"),
        (lambda: OnlineScored(cause="timeout", fallback=Figure(0.5)), 504, "refused", "timeout"),
        (lambda: OnlineScored(cause="missing", why_no_fallback="none"), 503, "refused", "missing"),
        (raising(PeerLost("bank is not up")), 503, "refused", "missing"),
        (raising(LinkTimeout("no answer")), 504, "refused", "timeout"),
        (lambda: OnlineScored(cause="refused", why="no"), 403, "refused", "refused"),
        (lambda: OnlineScored(cause="data", why="no column"), 409, "refused", "data"),
        (lambda: OnlineScored(unknown=True), 404, "refused", "unknown"),
    ],
)
def test_every_end_has_its_status_its_code_and_its_line_in_the_log(
    door: Door, says: Callable[[], OnlineScored], code: int, status: str, cause: str
) -> None:
    http, _ = door(says, falls_back_on=("missing", "absent"))
    answer = http.post("/v1/score", json=GOOD)
    said = answer.json()
    assert (answer.status_code, said["status"], said["cause"]) == (code, status, cause)
    assert (said["score"] is None) == (status == "refused")
    entry = json.loads((door.folder / "scores" / "log.jsonl").read_text().splitlines()[-1])
    assert (entry["request_id"], entry["status"], entry["http"]) == (said["request_id"], status, code)
    assert ("retry-after" in answer.headers) == (code == 503)


def test_what_cannot_be_written_down_is_not_answered(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    http, agent = door()
    monkeypatch.setattr(AuditLog, "append", lambda *_, **__: raising(FednbError("the disk is full"))())
    answer = http.post("/v1/score", json=GOOD)
    assert answer.status_code == 500 and answer.json() == {"error": "the disk is full", "field": ""}
    assert agent.asked and "0.25" not in answer.text
    monkeypatch.setattr(AuditLog, "append", lambda *_, **__: raising(KeyError("income 1"))())
    with caplog.at_level(logging.ERROR):
        answer = http.post("/v1/score", json=GOOD)
    assert answer.status_code == 500 and "income" not in answer.text and "KeyError" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "say with --token which file"),
        ({"host": "0.0.0.0", "token": "token"}, "would pass in plain text"),
        ({"host": "0.0.0.0", "token": "token", "certificate": "x"}, "go together"),
        ({"host": "0.0.0.0", "token": "token", "certificate": "x", "key": "x"}, "no certificate and its key"),
        ({"token": "open"}, "can be read by other users"),
        ({"token": "short"}, "holds no token"),
        ({"token": "nothing"}, "cannot be read"),
        ({"falls_back_on": ("always",)}, "knows missing, preparing"),
        ({"timeout": 0.0}, "from 0.05 to 600"),
    ],
)
def test_what_would_not_be_safe_is_not_started(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    enrol_all(tmp_path, {"hub": "hub", "bank": "party", "coordinator": "coordinator"})
    for name, content, mode in (("token", "t" * 32, 0o600), ("open", "t" * 32, 0o644), ("short", "t", 0o600)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    files = {name: tmp_path / value for name, value in options.items() if name in ("token", "certificate", "key")}
    saved.write(tmp_path / "card.json", CARD)
    with pytest.raises(ConfigError, match=words):
        run(Options(tmp_path / "bank", tmp_path / "card.json", **options | files), lambda address: None)


def test_a_service_runs_at_a_party_whose_member_is_up(tmp_path: Path) -> None:
    enrol_all(tmp_path, {"hub": "hub", "bank": "party", "coordinator": "coordinator"})
    saved.write(tmp_path / "card.json", CARD)
    with pytest.raises(PeerLost, match="bank is not up: start it with fednb party"):
        run(Options(tmp_path / "bank", tmp_path / "card.json"), lambda address: None)
    with pytest.raises(ConfigError, match="is the home of a coordinator"):
        run(Options(tmp_path / "coordinator", tmp_path / "card.json"), lambda address: None)
