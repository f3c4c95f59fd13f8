"""What `fednb kernels install` puts into Jupyter's list."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from nbclient import NotebookClient

from fednb import cli
from fednb.errors import ConfigError
from fednb.federation import launch
from fednb.notebook import kernelspecs
from fednb.notebook.lab.owner import OWNS
from fednb.notebook.provisioner import PartyProvisioner
from fednb.wire.keys import enrol_all


def installed(prefix: Path) -> KernelSpecManager:
    return KernelSpecManager(kernel_dirs=[str(prefix / "share" / "jupyter" / "kernels")], ensure_native_kernel=False)


def test_both_kernels_are_installed_for_this_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernels", "install", "--prefix", str(tmp_path)]) == 0

    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    found = installed(tmp_path)
    assert sorted(found.find_kernel_specs()) == ["fednb", "fednb-party"]
    assert [path.name for path in printed] == ["fednb", "fednb-party", "fednb-lab"]
    for name, extension in (("fednb", "connected"), ("fednb-party", "attached")):
        spec = found.get_kernel_spec(name)
        assert spec.argv[0] == sys.executable and spec.argv[-1] == f"--ext=fednb.notebook.{extension}"
        assert {"kernel.json", "logo-32x32.png", "logo-64x64.png", "logo-svg.svg"} == {
            path.name for path in Path(spec.resource_dir).iterdir()
        }


def test_the_party_kernel_is_launched_by_our_provisioner(tmp_path: Path) -> None:
    cli.main(["kernels", "install", "--prefix", str(tmp_path)])
    spec = installed(tmp_path).get_kernel_spec("fednb-party")

    made = KernelProvisionerFactory().create_provisioner_instance("kernel", spec, parent=None)

    assert type(made) is PartyProvisioner


def test_a_kernel_of_ones_own_party_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--prefix", str(tmp_path), "--party", "Bank_1", "--profile", "federation.toml"]
    assert cli.main(["kernels", "install", *arguments]) == 0

    spec = installed(tmp_path).get_kernel_spec("fednb-party-bank_1")
    assert spec.display_name == "fednb (Bank_1)"
    provisioner = spec.metadata["kernel_provisioner"]
    assert provisioner["config"] == {"party": "Bank_1", "profile": str(tmp_path / "federation.toml")}


def test_a_kernel_of_an_owner_opens_the_inbox_of_her_member(tmp_path: Path) -> None:
    enrol_all(tmp_path / "homes", {"hub": "hub", "Bank_1": "party", "coordinator": "coordinator"})
    home = tmp_path / "homes" / "Bank_1"
    assert cli.main(["kernels", "install", "--prefix", str(tmp_path), "--owner", str(home)]) == 0
    found = installed(tmp_path)
    spec = found.get_kernel_spec("fednb-owner-bank_1")
    assert spec.display_name == "fednb (owner of Bank_1)" and spec.env == {OWNS: str(home)}
    assert "logo-svg.svg" in {path.name for path in Path(spec.resource_dir).iterdir()}
    cli.main(["kernels", "remove", "--prefix", str(tmp_path)])
    assert found.find_kernel_specs() == {}
    with pytest.raises(ConfigError):
        kernelspecs.install(prefix=str(tmp_path), owner=tmp_path / "nobody")


def test_installing_where_it_came_from_and_twice_is_no_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernelspecs.install(prefix=str(tmp_path))
    place = tmp_path / "share" / "jupyter" / "kernels"
    monkeypatch.setattr(kernelspecs, "folder", lambda name: place / name)

    kernelspecs.install(prefix=str(tmp_path))

    assert json.loads((place / "fednb" / "kernel.json").read_text())["argv"][0] == sys.executable


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("a file")

    with pytest.raises(ConfigError, match="fednb cannot be installed: .* Use --user or --prefix"):
        kernelspecs.install(prefix=str(tmp_path))


def test_a_profile_without_a_party_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernels", "install", "--profile", "federation.toml"]) == 2
    assert "name the party with --party" in capsys.readouterr().err


LOAD = "fed.load('loans').amount.sum()"
FEDERATION = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
mode = "open"
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
"""


@pytest.mark.slow
def test_a_notebook_opens_on_either_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(FEDERATION)
    (tmp_path / "loans.csv").write_text("sme_id,amount\nA1,10\nA2,20\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    cli.main(["kernels", "install", "--prefix", str(tmp_path), "--party", "bank", "--profile", str(file)])

    with launch.up(file):
        for kernel, cell in (("fednb", f"%%party bank\n{LOAD}"), ("fednb-party-bank", LOAD)):
            book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
            NotebookClient(book, timeout=60, kernel_name=kernel).execute(env=dict(os.environ))
            assert "np.int64(30)" in json.dumps(book.cells[0].outputs), kernel
