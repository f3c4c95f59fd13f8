"""The extension is where Jupyter looks for it, whichever way fednb was installed, and says what Python says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fednb import cli
from fednb.errors import ConfigError
from fednb.notebook import labextension
from fednb.notebook.palette import COORDINATOR, PARTIES

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "extensions" / "lab"
STATIC = SOURCE / "static"
WIDGET = ROOT / "fednb" / "notebook" / "widgets"


def installed(prefix: Path) -> set[str]:
    place = prefix / "share" / "jupyter" / "labextensions" / "fednb-lab"
    return {flat(str(path.relative_to(place))) for path in place.rglob("*") if path.is_file()}


def flat(name: str) -> str:
    """Without the folder that is named by the contents."""
    return re.sub(r"^static/[^/]+/", "static/", name)


def expected() -> set[str]:
    own = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*") if path.is_file()}
    return own | {f"static/{name}" for name in labextension.WIDGET}


def test_the_command_installs_and_removes_it_with_the_kernels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["kernels", "install", "--prefix", str(tmp_path), "--party", "bank"]) == 0
    assert installed(tmp_path) == expected()
    where = tmp_path / "share" / "jupyter" / "labextensions" / "fednb-lab"
    static = loaded(where).parent
    assert (static / "training.js").read_bytes() == (WIDGET / "training.js").read_bytes()
    assert json.dumps(f"{sys.executable} -m fednb.cli") in (static / "here.js").read_text()
    (static / "old.js").touch()
    other = tmp_path / "share" / "jupyter" / "kernels" / "fednbish"
    other.mkdir()
    cli.main(["kernels", "install", "--prefix", str(tmp_path)])
    assert installed(tmp_path) == expected(), "what an older release had left is gone"

    capsys.readouterr()
    assert cli.main(["kernels", "remove", "--prefix", str(tmp_path)]) == 0
    gone = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert gone == {"fednb", "fednb-party", "fednb-party-bank", "fednb-lab"}
    assert [path.name for path in (tmp_path / "share" / "jupyter" / "kernels").iterdir()] == ["fednbish"]
    assert installed(tmp_path) == set()
    assert cli.main(["kernels", "remove", "--prefix", str(tmp_path)]) == 0, "there is nothing left to remove"


def loaded(place: Path) -> Path:
    """The file that Jupyter loads."""
    return place / str(json.loads((place / "package.json").read_text())["jupyterlab"]["_build"]["load"])


def test_other_contents_have_another_address_because_browsers_keep_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = labextension.install(prefix=str(tmp_path))
    first = loaded(place)
    assert first.is_file() and labextension.install(prefix=str(tmp_path)) == place and loaded(place) == first
    changed = tmp_path / "changed"
    shutil.copytree(SOURCE, changed)
    (changed / "static" / "cells.js").write_text("// another\n")
    monkeypatch.setattr(labextension, "folder", lambda: changed)
    labextension.install(prefix=str(tmp_path))
    assert loaded(place).is_file() and loaded(place) != first


def test_what_is_installed_already_is_renewed_from_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = labextension.install(prefix=str(tmp_path))
    monkeypatch.setattr(labextension, "folder", lambda: place)
    labextension.install(prefix=str(tmp_path))
    assert installed(tmp_path) == expected()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("a file")
    with pytest.raises(ConfigError, match="extension cannot be installed: .* Use --user or --prefix"):
        labextension.install(prefix=str(tmp_path))


@pytest.mark.slow
def test_wheel_and_source_archive_bring_it_along(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if files.returncode:
        pytest.skip("needs a checkout")
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path / "dist"),
        str(copy),
    ]
    subprocess.run(pip, check=True)
    (wheel,) = (tmp_path / "dist").glob("fednb-*.whl")
    mark = "data/share/jupyter/labextensions/fednb-lab/"
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split(mark)[1] for name in archive.namelist() if mark in name}
        package = json.loads(archive.read(next(n for n in archive.namelist() if n.endswith(mark + "package.json"))))
    assert {flat(name) for name in names} == expected()
    assert package["jupyterlab"]["_build"]["load"] in names
    pytest.importorskip("setuptools")
    make = f"import setuptools.build_meta as b; print(b.build_sdist({str(tmp_path / 'dist')!r}))"
    made = subprocess.run([sys.executable, "-c", make], cwd=copy, capture_output=True, text=True, check=True)
    with tarfile.open(tmp_path / "dist" / made.stdout.split()[-1]) as source:
        packed = {name.partition("/")[2] for name in source.getnames()}
    assert {str(path.relative_to(ROOT)) for path in SOURCE.rglob("*") if path.is_file()} <= packed


def test_the_page_draws_members_as_figures_do() -> None:
    text = (STATIC / "palette.js").read_text()
    looks = re.findall(r'fill: "(.+?)", ink: "(.+?)", inkDark: "(.+?)", mark: "(.+?)"', text)
    assert looks[:-1] == [(look.fill, look.ink, look.ink_dark, look.mark) for look in (*PARTIES, COORDINATOR)]


def test_nothing_in_the_page_parses_markup_or_runs_text() -> None:
    forbidden = r"(inner|outer|insertAdjacent)HTML|document\.write|DOMParser|\beval\b|new Function|ContextualFragment"
    for path in [*STATIC.glob("*.js"), WIDGET / "training.js"]:
        assert not re.search(forbidden, path.read_text()), path.name


def test_every_module_is_asked_for_at_once() -> None:
    listed = re.findall(
        r'"(\w+)",?', (STATIC / "remoteEntry.js").read_text().split("for (const name of [")[1].split("]")[0]
    )
    assert {f"{name}.js" for name in listed} == {path.name for path in STATIC.glob("*.js")} - {"remoteEntry.js"} | {
        "training.js"
    }


def test_the_extension_is_of_this_release() -> None:
    from fednb.version import __version__

    package = json.loads((SOURCE / "package.json").read_text())
    assert package["version"] == __version__
    assert package["jupyterlab"]["_build"]["load"] == f"static/{__version__}/remoteEntry.js"
