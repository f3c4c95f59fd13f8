"""How much the wire costs: a big array, and a small message there and back, sealed through the hub, against raw ZeroMQ.

    python benchmarks/wire.py [--mb 100] [--rounds 500] [--repeat 3]

Members are processes of their own, as in a federation. The peer is ZeroMQ with CURVE in the same run: directly
between two processes (the array as one message, and in parts of 1 MiB, which suits it better), and through a ROUTER
that passes messages on, as a hub does but without seals, acknowledgements or presence. The last line is one JSON
object; its first ratio is against the best of the direct ones.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from fednb.wire.dealer import DealerEndpoint
from fednb.wire.endpoint import Conversation
from fednb.wire.hub import Hub
from fednb.wire.keys import Identity, Kind, MemberHome, enrol_all
from fednb.wire.message import Message

KINDS: dict[str, Kind] = {"hub": "hub", "bank": "party", "analyst": "analyst"}


class Bulk(Message):
    x: np.ndarray


class Note(Message):
    text: str


# ---------------------------------------------------------------- fednb


def hub_process(root: Path, control: Connection) -> None:
    hub = Hub(MemberHome.load(root / "hub"), "tcp://127.0.0.1:0").start()
    control.send(hub.address)
    control.recv()
    hub.close()


def party_process(root: Path, address: str, control: Connection) -> None:
    def serve(talk: Conversation) -> None:
        while True:
            got = talk.recv(Note, Bulk)
            talk.send(Note("got it") if isinstance(got, Bulk) else got)

    endpoint = DealerEndpoint(MemberHome.load(root / "bank"), hub=address)
    endpoint.listen("bench", serve)
    control.send("ready")
    control.recv()
    endpoint.close()


def measure_fednb(array: np.ndarray, rounds: int, repeat: int) -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        enrol_all(root, KINDS)
        with Process(hub_process, root) as hub:
            address = hub.recv()
            with Process(party_process, root, address) as party:
                party.recv()
                endpoint = DealerEndpoint(MemberHome.load(root / "analyst"), hub=address)
                talk = endpoint.open("bank", "bench")

                def bulk() -> None:
                    talk.send(Bulk(array))
                    talk.recv(Note, timeout=60)

                def note() -> None:
                    talk.send(Note("1+1"))
                    talk.recv(Note, timeout=60)

                try:
                    return timed(bulk, repeat), timed(note, rounds)
                finally:
                    endpoint.close()


# ---------------------------------------------------------------- ZeroMQ with CURVE, and nothing else


def raw_echo(server: bytes, keys: Identity, address: str | None, control: Connection) -> None:
    """Answers b"ok" to big messages and echoes small ones; binds, or dials out to a relay."""
    context = zmq.Context()
    if address is None:
        socket = context.socket(zmq.REP)
        keys.unlock(socket)
        socket.curve_server = True
        socket.bind("tcp://127.0.0.1:0")
        control.send(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    else:
        socket = context.socket(zmq.REP)
        keys.unlock(socket)
        socket.curve_serverkey = server
        socket.connect(address)
        control.send("ready")
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(control.fileno(), zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if control.fileno() in ready:
            break
        frames = socket.recv_multipart(copy=False)
        socket.send_multipart([b"ok"] if sum(map(len, frames)) > 1000 else frames, copy=False)
    socket.close(0)
    context.term()


def raw_relay(keys: Identity, control: Connection) -> None:
    """Two doors: ROUTER for the one who asks, DEALER for the one who answers."""
    context = zmq.Context()
    doors = [context.socket(zmq.ROUTER), context.socket(zmq.DEALER)]
    for door in doors:
        keys.unlock(door)
        door.curve_server = True
        door.bind("tcp://127.0.0.1:0")
    control.send([door.getsockopt_string(zmq.LAST_ENDPOINT) for door in doors])
    threading.Thread(target=quiet_proxy, args=tuple(doors), daemon=True).start()
    control.recv()
    context.destroy(0)


def quiet_proxy(front: zmq.Socket[bytes], back: zmq.Socket[bytes]) -> None:
    try:
        zmq.proxy(front, back)
    except zmq.ZMQError:
        return  # the context ended


def measure_raw(
    array: np.ndarray, rounds: int, repeat: int, part: int, *, relayed: bool = False
) -> tuple[list[float], list[float]]:
    server, client = Identity.generate("server"), Identity.generate("client")
    if relayed:
        with Process(raw_relay, keys=server) as relay:
            front, back = relay.recv()
            with Process(raw_echo, server.curve_public, client, back) as echo:
                echo.recv()
                return ask_raw(server, client, front, array, rounds, repeat, part)
    with Process(raw_echo, b"", server, None) as echo:
        return ask_raw(server, client, echo.recv(), array, rounds, repeat, part)


def ask_raw(
    server: Identity, client: Identity, address: str, array: np.ndarray, rounds: int, repeat: int, part: int
) -> tuple[list[float], list[float]]:
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    client.unlock(socket)
    socket.curve_serverkey = server.curve_public
    socket.connect(address)

    whole = memoryview(array).cast("B")
    parts = [whole[start : start + part] for start in range(0, len(whole), part)]

    def bulk() -> None:
        socket.send_multipart(parts, copy=False)
        socket.recv()

    def note() -> None:
        socket.send(b"1+1")
        socket.recv()

    try:
        return timed(bulk, repeat), timed(note, rounds)
    finally:
        socket.close(0)
        context.term()


# ---------------------------------------------------------------- measuring


class Process:
    """A forked process with a pipe to it; leaving it tells it to stop."""

    def __init__(self, target: Callable[..., None], *args: Any, keys: Identity | None = None) -> None:
        mine, theirs = multiprocessing.Pipe()
        self.connection = mine
        arguments = (*args, keys, theirs) if keys else (*args, theirs)
        self.process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)
        self.process.start()

    def __enter__(self) -> Connection:
        return self.connection

    def __exit__(self, *_: object) -> None:
        self.connection.send("stop")
        self.process.join(10)


def timed(action: Callable[[], None], times: int) -> list[float]:
    """Seconds of each of `times` calls, after one to warm up."""
    action()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mb", type=int, default=100, help="size of the array in MB (default 100)")
    parser.add_argument("--rounds", type=int, default=500, help="small messages there and back (default 500)")
    parser.add_argument("--repeat", type=int, default=3, help="times that the array is sent (default 3)")
    options = parser.parse_args()
    array = np.random.default_rng(0).random(options.mb * 1_000_000 // 8)

    def report(name: str, measured: tuple[list[float], list[float]]) -> dict[str, float]:
        bulk, note = min(measured[0]), statistics.median(measured[1]) * 1000
        print(f"{name:42} {options.mb} MB: {bulk:.3f} s, {options.mb / bulk:4.0f} MB/s   round trip: {note:.3f} ms")
        return {"seconds": bulk, "round_trip_ms": note}

    size, mebibyte = array.nbytes, 1 << 20
    raw = functools.partial(measure_raw, array, options.rounds, options.repeat)
    whole = report("raw ZeroMQ + CURVE, direct, one message", raw(size))
    parts = report("raw ZeroMQ + CURVE, direct, 1 MiB parts", raw(mebibyte))
    relayed = report("raw ZeroMQ + CURVE, relayed, 1 MiB parts", raw(mebibyte, relayed=True))
    ours = report("fednb, sealed, through the hub", measure_fednb(array, options.rounds, options.repeat))
    results = {
        "bulk_vs_direct": ours["seconds"] / min(whole["seconds"], parts["seconds"]),
        "bulk_vs_relayed": ours["seconds"] / relayed["seconds"],
        "round_trip_vs_direct": ours["round_trip_ms"] / parts["round_trip_ms"],
        "round_trip_vs_relayed": ours["round_trip_ms"] / relayed["round_trip_ms"],
        "round_trip_ms": ours["round_trip_ms"],
        "bulk_seconds": ours["seconds"],
        "mb": options.mb,
    }
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


if __name__ == "__main__":
    main()
