from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fednb.errors import ConfigError
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
