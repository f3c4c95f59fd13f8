"""Structs that several threads decode for the first time at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

FEDNB = Path(__file__).parents[1] / "fednb"

AT_ONCE = """
import sys, threading
sys.setswitchinterval(1e-6)
from fednb.federation import messages as m
from fednb.wire import codec

frames = codec.encode(m.MemberDone(m.MemberResult("party", {"a": 1}, {"x": 1}, {"b": 2}, {"c": 3})))
start = threading.Barrier(6)

def decode():
    start.wait()
    assert codec.decode(frames, m.MemberDone).result.role == "party"

threads = [threading.Thread(target=decode) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_meet_a_message_for_the_first_time_at_once_all_decode_it() -> None:
    for _ in range(6):  # without the lock two of three processes die
        done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_every_type_is_known_before_it_is_decoded() -> None:
    """`type=` of msgspec's functions, and `convert`'s second argument; what is made at import, one thread makes."""
    found, bare = 0, []
    for file in sorted(FEDNB.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("msgspec.")):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            kinds = [keyword.value for keyword in node.keywords if keyword.arg == "type"]
            if name == "convert":
                kinds += node.args[1:2]
            if name not in ("decode", "convert"):
                continue
            for kind in kinds:
                found += 1
                text = ast.unparse(kind)
                if not text.startswith(("known(", "tuple[")):  # a tuple of builtins has nothing to be learnt
                    bare.append(f"{file.relative_to(FEDNB)}:{node.lineno}: {text}")
    assert found > 20 and bare == []
