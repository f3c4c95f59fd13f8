"""A federation of real processes with saved models, and `fednb serve` beside it as a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from fednb.federation.launch import Running

ROWS = 200
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = 5.0
[party.bank]
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency]
[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
[party.agency.online.bank]
table = "invoices"
models = ["*"]
requests_a_day = 40
reasons = 1
"""


@dataclass
class World:
    """Saved models, and what a batch said of each row."""

    folder: Path
    running: Running
    loans: pd.DataFrame
    scores: pd.DataFrame  # by sme_id: regression, points, card
    alone: pd.Series  # by the bank's own model
    own: list[subprocess.Popen[str]] = field(default_factory=list)  # processes that these tests started

    @property
    def bank(self) -> Path:
        return self.running.root / "bank"

    def kill(self, party: str) -> None:
        """Its process, without notice."""
        process = self.running.members[party]
        process.kill()
        process.wait(20)
        for pipe in (process.stdin, process.stdout if process in self.own else None):
            if pipe is not None:
                pipe.close()

    def start(self, party: str, text: str = FILE) -> None:
        """Again, in its home, with a file of its owner's; as one that nobody else looks after."""
        file = self.folder / f"{party}.toml"
        file.write_text(text)
        arguments = [sys.executable, "-m", "fednb.cli", "party", str(self.running.root / party), "--file", str(file)]
        with open(self.folder / f"{party}.log", "ab") as errors:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            process = subprocess.Popen(arguments, text=True, **pipes)
        assert process.stdout is not None and "ready" in process.stdout.readline()
        self.running.members[party] = process
        self.own.append(process)


@dataclass
class Served:
    """A running `fednb serve`."""

    client: httpx.Client
    process: subprocess.Popen[str]
    home: Path

    def score(self, id: str, features: dict[str, Any] | None = None, code: int = 200) -> dict[str, Any]:
        body = {"id": id} if features is None else {"id": id, "features": features}
        answer = self.client.post("/v1/score", json=body)
        assert answer.status_code == code, answer.text
        return dict(answer.json())

    def until(self, status: Callable[[dict[str, Any]], bool], seconds: float = 90) -> dict[str, Any]:
        """What /ready says once `status` holds of it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            said = dict(self.client.get("/ready").json())
            if status(said):
                return said
            threading.Event().wait(0.05)
        raise AssertionError(f"/ready still says {said}")

    def log(self) -> list[dict[str, Any]]:
        lines = (self.home / "scores" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def command(home: Path, *options: object) -> list[str]:
    return [sys.executable, "-m", "fednb.cli", "serve", str(home), "--port", "0", *map(str, options)]


@contextlib.contextmanager
def serving(home: Path, *options: object, verify: Any = True, token: str = "") -> Iterator[Served]:
    """`fednb serve` with these options, once it listens."""
    with open(home / "serve.log", "ab") as errors:
        process = subprocess.Popen(command(home, *options), stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving at "), (home / "serve.log").read_text()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=line.split()[2].rstrip(","), timeout=30, verify=verify, headers=headers) as client:
            yield Served(client, process, home)
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
