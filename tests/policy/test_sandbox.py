"""Each known way out of the sandbox, with and without it: what leads nowhere without one proves nothing."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednb import cli
from fednb.errors import ConfigError
from fednb.policy import bait, bubblewrap, escapes, landlock, sandbox, seccomp
from fednb.policy.bait import Outside
from fednb.policy.sandbox import BACKENDS, Backend, Limits, Sandbox

OWN_PROGRAMS = {"start a shell", "become another program", "start many processes"}


def working(backend: Backend) -> Backend:
    if reason := sandbox.missing(backend):
        pytest.skip(f"this machine cannot: {backend}: {reason}")
    return backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return working(request.param)


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with Outside() as made:
        yield made


@pytest.fixture(scope="module")
def free() -> dict[str, bait.Outcome]:
    """How each ended without a sandbox, as far as it was tried."""
    return {}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sandbox_that_the_machine_can_have_works(backend: Backend) -> None:
    """Other tests are skipped without one; this one tells a machine that cannot from a sandbox that is broken."""
    if backend == "bubblewrap":
        bare = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "/bin/true"]
        can = bubblewrap.program() is not None and not subprocess.run(bare, capture_output=True).returncode
    else:
        can = landlock.version() >= landlock.NEEDED
    if not can:
        pytest.skip(f"this machine cannot: {sandbox.missing(backend)}")
    assert sandbox.missing(backend) == ""


def test_there_are_many_ways_to_try() -> None:
    assert len(escapes.ESCAPES) >= 50


@pytest.mark.parametrize("name", escapes.ESCAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_process_can_do_outside_it_cannot_do_in_the_sandbox(
    backend: Backend, name: str, outside: Outside, free: dict[str, bait.Outcome]
) -> None:
    working(backend)
    if name not in free:
        free[name] = outside.attempt(name, None)
    if not free[name].escaped and any(word in free[name].said for word in ("PermissionError", "not implemented")):
        pytest.skip(f"this machine declines it to everybody: {free[name].said}")
    assert free[name].escaped, f"without a sandbox it has to work, or this test cannot fail: {free[name].said}"

    inside = outside.attempt(name, backend)

    assert not inside.escaped, inside.said
    assert "Traceback" not in inside.said and "sandbox could not be closed" not in inside.said


@pytest.mark.parametrize("name", escapes.ESCAPES)
def test_what_may_start_programs_reaches_no_more_by_them(name: str, outside: Outside) -> None:
    """Of processes and sockets it has its own: those of an empty system, as confined as it is."""
    inside = outside.attempt(name, working("bubblewrap"), programs=True)
    assert inside.escaped == (name in OWN_PROGRAMS), inside.said


def test_what_may_start_programs_writes_to_memory_only_and_is_the_first_to_go(tmp_path: Path) -> None:
    code = f"""
import os, subprocess
open('a', 'w').write('x')
os.makedirs({str(tmp_path / "k" / "deep")!r}, exist_ok=True) if os.access({str(tmp_path / "k")!r}, os.W_OK) else None
print(open('/proc/self/oom_score_adj').read().strip(), subprocess.run(['cat', 'a'], capture_output=True).stdout)
"""
    done = run(working("bubblewrap"), tmp_path / "k", code, programs=True)
    assert done.stdout.splitlines()[0] == "1000 b'x'", done.stderr
    assert sorted(path.name for path in (tmp_path / "k").rglob("*")) == ["analysts_code.py", "files"]


def test_only_in_a_system_of_its_own_may_anything_start_programs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in a system of its own only, and landlock makes none"):
        Sandbox("landlock").command("fednb.policy.escapes", folder=tmp_path, programs=True)


def run(backend: Backend, folder: Path, code: str, **options: object) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (module := folder / "files" / "analysts_code.py").parent.mkdir()
    module.write_text(code)
    command = Sandbox(backend).command("timeit", "-n1", "-r1", code, folder=folder, **options)  # type: ignore[arg-type]
    return subprocess.run(command.argv, env=command.env, capture_output=True, text=True, timeout=60, cwd=folder)


def test_it_works_in_its_own_folder_with_threads_and_sees_what_it_is_shown(backend: Backend, tmp_path: Path) -> None:
    shown = tmp_path / "snapshot.arrow"
    shown.write_text("rows")
    code = f"""
import concurrent.futures as c, json, os, shutil, numpy
open('a', 'w').write('x'); shutil.copy2('a', 'b')
with c.ThreadPoolExecutor(4) as pool: squares = list(pool.map(lambda x: x * x, range(3)))
try: open({str(shown)!r}, 'w'); changed = True
except OSError: changed = False
print(json.dumps([squares, open('b').read(), open({str(shown)!r}).read(), changed, os.environ['HOME'] == os.getcwd()]))
"""
    done = run(backend, tmp_path / "k", code, read=[shown])
    assert json.loads(done.stdout.splitlines()[0]) == [[0, 1, 4], "x", "rows", False, True], done.stderr
    assert shown.read_text() == "rows"


def test_nothing_is_imported_from_the_folder_it_starts_in_before_it_is_confined(
    backend: Backend, tmp_path: Path
) -> None:
    (tmp_path / "k" / "files").mkdir(parents=True)
    for folder in (tmp_path / "k", tmp_path / "k" / "files"):
        for module in ("ctypes", "msgspec", "resource", "fednb"):
            (folder / f"{module}.py").write_text("open('/tmp/never', 'w'); raise SystemExit('planted code ran')")
    command = Sandbox(backend).command("timeit", "-n1", "-r1", "print('ran')", folder=tmp_path / "k")
    done = subprocess.run(
        command.argv, env=command.env, capture_output=True, text=True, timeout=60, cwd=tmp_path / "k" / "files"
    )
    assert done.stdout.startswith("ran"), done.stderr
    assert "planted" not in done.stderr


def test_a_step_that_fails_starts_nothing(tmp_path: Path) -> None:
    working("landlock")
    (tmp_path / "files").mkdir()
    command = Sandbox("landlock").command("timeit", "-n1", "-r1", "print('ran')", folder=tmp_path)
    argv = [part.replace(f'"{tmp_path}"', f'"{tmp_path}/gone"') for part in command.argv]
    assert argv != command.argv
    done = subprocess.run(argv, env=command.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and done.stdout == ""
    assert "nothing was started" in done.stderr and f"{tmp_path}/gone" in done.stderr


def test_a_filter_that_lets_a_call_through_is_noticed(
    outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe would not call a sandbox with a hole in it one that works."""
    working("landlock")
    sandbox.missing.cache_clear()
    whole = Sandbox.command

    def holed(self: Sandbox, *arguments: str, **options: object) -> sandbox.Command:
        command = whole(self, *arguments, **options)  # type: ignore[arg-type]
        code = (
            "import sys; from fednb.policy import confined, seccomp; seccomp.REFUSED.pop('unshare'); "
            "confined.main(sys.argv[1:])"
        )
        at = command.argv.index("-m")
        return sandbox.Command([*command.argv[:at], "-c", code, *command.argv[at + 2 :]], command.env)

    monkeypatch.setattr(Sandbox, "command", holed)
    try:
        assert "a namespace was entered" in sandbox.missing("landlock")
    finally:
        sandbox.missing.cache_clear()


def test_without_any_sandbox_nothing_is_started_and_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.missing.cache_clear()
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    monkeypatch.setattr(landlock, "version", lambda: 2)
    try:
        with pytest.raises(ConfigError, match="no kernel is started next to data") as caught:
            sandbox.find()
        assert "the package bubblewrap" in str(caught.value) and "version 2 of Landlock, and 6" in str(caught.value)
        with pytest.raises(ConfigError, match="bubblewrap: bwrap is not installed"):
            sandbox.find("bubblewrap")
        assert "NONE" in sandbox.describe()
    finally:
        sandbox.missing.cache_clear()


def test_another_sandbox_is_never_taken_for_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    working("landlock")
    sandbox.missing.cache_clear()
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    try:
        assert sandbox.find("auto") == "landlock"
        with pytest.raises(ConfigError, match="bubblewrap"):
            sandbox.find("bubblewrap")
        with pytest.raises(ConfigError, match="no sandbox"):
            sandbox.find("none")
    finally:
        sandbox.missing.cache_clear()


def test_data_where_python_lies_is_refused_because_it_would_be_seen() -> None:
    with pytest.raises(ConfigError, match="Move the data"):
        Sandbox("landlock", private=[Path(sys.prefix) / "loans.csv"])
    with pytest.raises(ConfigError, match="/usr"):
        Sandbox("bubblewrap", private=[Path("/usr/share/loans.csv")])
    Sandbox("landlock", private=[Path(sys.prefix).parent / "loans.csv"])


@pytest.mark.parametrize("programs", [False, True])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_lands_inside_it_and_every_way_ends(machine: str, programs: bool) -> None:
    made = seccomp.program(machine, programs)
    assert len(made) < 4096, "Linux takes no longer ones"
    for at, (code, true, false, _) in enumerate(made):
        if code in (0x15, 0x25, 0x45):
            assert at + 1 + max(true, false) < len(made)
    assert made[-1][0] == 0x06


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_the_numbers_of_calls_are_those_of_linux(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} comes with linux-libc-dev, which is not installed")
    words = (line.split() for line in Path(header).read_text().splitlines())
    known = {w[1].removeprefix("__NR_"): int(w[2]) for w in words if w[:1] == ["#define"] and w[2:] and w[2].isdigit()}
    column = ("x86_64", "aarch64").index(machine)
    tables = (seccomp.REFUSED, seccomp.IGNORED, seccomp.ABSENT, seccomp.OWN, seccomp.SOCKETS, {"clone": seccomp.CLONE})
    ours = {name: numbers[column] for table in tables for name, numbers in table.items()}
    newer = {"fchmodat2"}  # than some headers
    assert {name: known.get(name, -1) for name in ours.keys() - newer} == {n: ours[n] for n in ours.keys() - newer}


def test_the_doctor_tries_every_way_out_and_says_how_it_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(not sandbox.missing(backend) for backend in BACKENDS):
        pytest.skip("no sandbox works here")
    some = ("read the member's key", "start a shell")
    monkeypatch.setattr(escapes, "ESCAPES", {name: escapes.ESCAPES[name] for name in some})
    assert cli.main(["doctor", "--escapes"]) == 0
    said = capsys.readouterr().out
    assert "read the member's key" in said and "possible without" in said and "0 escaped" in said

    monkeypatch.setattr(bait.Outside, "attempt", lambda self, name, backend: bait.Outcome(True, "got it"))
    assert cli.main(["doctor", "--escapes"]) == 1
    assert "ESCAPED" in capsys.readouterr().out


def test_the_bait_leaves_nothing_behind() -> None:
    with Outside() as made:
        agent, shared = made.bait.agent, made.bait.shared
        made.attempt("write into the machine's temporary folder", None)
        root = Path(made.bait.folder).parent
        assert Path(f"/proc/{agent}").exists()
    assert not Path(f"/proc/{agent}").exists() and not root.exists()
    assert not Path(made.bait.temporary).exists() and not Path("/dev/shm", made.bait.shm).exists()
    assert ctypes.CDLL(None).shmget(shared, 0, 0) == -1


def test_no_privilege_is_left_and_none_can_be_had_back(backend: Backend, tmp_path: Path) -> None:
    done = run(backend, tmp_path / "k", "print(open('/proc/self/status').read())")
    state = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(state[kind], 16) == 0, kind
    assert (state["NoNewPrivs"].strip(), state["Seccomp"].strip()) == ("1", "2")


def test_limits_are_what_the_process_has(backend: Backend, tmp_path: Path) -> None:
    code = "import resource as r; print([r.getrlimit(x) for x in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_CORE)])"
    command = Sandbox(backend, Limits(memory=2 << 30, cpu=7)).command("timeit", "-n1", "-r1", code, folder=tmp_path)
    done = subprocess.run(command.argv, env=command.env, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[0] == f"[({2 << 30}, {2 << 30}), (7, 8), (0, 0)]", done.stderr


def test_with_bubblewrap_there_is_nowhere_to_write_but_its_own_folders(tmp_path: Path) -> None:
    working("bubblewrap")
    code = """
import os
found = []
for place in ("/", "/etc", "/dev", "/usr", "/proc/sys/kernel", "/root", "/tmp", "/dev/shm", ".", ".."):
    try:
        open(os.path.join(place, "planted"), "w").close()
        found.append(place)
    except OSError:
        pass
print(found)
"""
    done = run("bubblewrap", tmp_path / "k", code)
    assert done.stdout.splitlines()[0] == "['/tmp', '/dev/shm', '.', '..']", done.stderr
    assert not Path("/tmp/planted").exists() and not Path("/dev/shm/planted").exists()
