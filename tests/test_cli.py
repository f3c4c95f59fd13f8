from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fednb import cli
from fednb.federation import connect
from fednb.version import __version__


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    commands = "demo up hub party doctor runs kernels audit policy inbox invite join members serve"
    for command in commands.split():
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
        assert f"usage: fednb {command}" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"fednb {__version__}\n"


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["upp"])
    assert ended.value.code == 2 and "'up'" in capsys.readouterr().err


def test_a_wrong_file_is_one_line_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.toml").write_text('[federation]\nhubb = "tcp://127.0.0.1:0"\n')
    assert cli.main(["up", str(tmp_path / "f.toml")]) == 2
    caught = capsys.readouterr()
    assert caught.out == "" and caught.err.count("\n") == 1
    assert f"{tmp_path / 'f.toml'}, line 2: federation.hubb: unknown key" in caught.err
    assert not (tmp_path / ".fednb").exists(), "nothing is made for a file that is wrong"


def test_asking_a_federation_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    for command in ("doctor", "runs"):
        assert cli.main([command]) == 2
        caught = capsys.readouterr()
        assert caught.err.startswith("fednb: no federation was started on this machine")
        # what the machine can do is known all the same
        assert ("encrypted arithmetic on this machine" in caught.out) is (command == "doctor")


@pytest.mark.parametrize(("up", "code"), [(True, 0), (False, 1)])
def test_the_doctor_says_who_is_up_and_what_computes_here(
    up: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Known:
        def __enter__(self) -> Known:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def doctor(self) -> pd.DataFrame:
            return pd.DataFrame({"member": ["bank"], "kind": ["party"], "up": [up]})

    monkeypatch.setattr(connect, "connect", lambda profile: Known())
    monkeypatch.setenv("FEDNB_KERNEL", "gmpy2")
    assert cli.main(["doctor"]) == code
    caught = capsys.readouterr()
    assert "encrypted arithmetic on this machine: gmpy2" in caught.out
    assert ("down: bank" in caught.err) is not up


def test_a_folder_that_is_no_home_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["hub", str(tmp_path), "--bind", "tcp://127.0.0.1:0"]) == 2
    assert "is not a member's home" in capsys.readouterr().err


def test_a_reader_that_has_enough_gets_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fednb.cli", "kernels", "install", "--prefix", str(tmp_path)]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert ended.returncode == 1 and ended.stderr == ""


def test_a_policy_is_explained_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = range(400)
    frame = {
        "id": rows,
        "age": [row % 50 for row in rows],
        "income": rows,
        "note": [f"n{row}" for row in rows],
        "x": rows,
    }
    pd.DataFrame(frame).to_csv(tmp_path / "loans.csv", index=False)
    (tmp_path / "f.toml").write_text(
        '[federation]\nhub = "tcp://10.0.0.9:7000"\n[party.bank]\nguard.k = 20\napproval = true\n'
        "[party.bank.tables.loans]\n"
        'path = "loans.csv"\nid = "id"\nroles = {age = {role = "key", cuts = [10, 45]}, x = "hidden"}\n'
        '[party.bank.analysts.ann]\ntables = ["loans"]\ncells = true\n'
    )
    assert cli.main(["policy", "check", str(tmp_path / "f.toml")]) == 0
    said = capsys.readouterr().out
    for words in (
        "bank is guarded: analysts' cells run here without the data",
        "asked of the owner with --ask run on a copy of the tables once she has approved them",
        "Kernels run in a sandbox (bubblewrap, else Landlock with seccomp), or not at all.",
        "at least 20 ids stand behind it",
        "ann may run cells; tables: loans; protocols: none.",
        "loans: 400 rows of 400 ids",
        "key: filters and groups by cut points 10, 45",
        "measure: figures only; cut points",
        "not offered: text",
        "hidden: not there",
        "make 3 groups, 0 of them with fewer than 20 rows",
    ):
        assert words in said, said
