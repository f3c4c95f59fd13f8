from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fednb.errors import ConfigError
from fednb.policy.apart import SetLedger
from fednb.policy.counts import Counts


def test_a_limit_is_never_passed_whatever_the_number_of_threads() -> None:
    counts, taken = Counts(), list[bool]()

    def take() -> None:
        for _ in range(100):
            taken.append(counts.take("today", "runs", 1, 250))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 250 and counts.of("today") == {"runs": 250}
    assert not counts.fits("today", "runs", 1, 250) and counts.fits("today", "runs", 0, 250)


def test_nothing_is_given_back() -> None:
    counts = Counts()
    assert counts.take("account", "agency", 9, 10)
    assert not counts.take("account", "agency", -9, 10) and counts.of("account") == {"agency": 9}


def test_counts_outlive_the_process_and_a_damaged_file_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    assert Counts(file).take("loans.default", "agency", 7, 10)
    assert file.stat().st_mode & 0o077 == 0
    assert not Counts(file).take("loans.default", "agency", 4, 10)
    file.write_bytes(b'{"loans.default": {"agency": "none"}}')
    with pytest.raises(ConfigError, match="is damaged: restore it"):
        Counts(file)


def test_accounts_of_no_more_use_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    Counts(file).take("monday", "runs", 1, 10)
    later = Counts(file, keep=lambda account: account != "monday")
    later.take("tuesday", "runs", 1, 10)
    assert b"monday" not in file.read_bytes()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from fednb.policy.apart import SetLedger
from fednb.policy.counts import Counts
folder = Path(sys.argv[1])
counts, sets = Counts(folder / "counts.json"), SetLedger(folder / "sets")
n = counts.of("today").get("runs", 0)
print("ready", flush=True)
while True:
    n += 1
    assert counts.take("today", "runs", 1, 10**9)
    sets.take("loans", np.arange(100 * n), 10)
    print(n, flush=True)
"""


def test_nothing_that_was_counted_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(2, 30)):
                assert writer.stdout.readline(), "the writer failed"
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged = max((int(line) for line in writer.stdout if line.strip().isdigit()), default=0)
        assert Counts(tmp_path / "counts.json").of("today")["runs"] >= acknowledged
        rows = np.arange(100 * acknowledged)
        if acknowledged:
            again = SetLedger(tmp_path / "sets")
            assert again.take("loans", rows[1:], 10) == 1, "the set that was acknowledged is kept"
