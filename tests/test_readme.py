"""The README and the pages under docs/ do what they say. (Its script on the demo's federation: test_demo.)"""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fednb import cli, config
from fednb.config import reader
from fednb.demo import run as demo
from fednb.errors import LinkError
from fednb.notebook import labextension
from fednb.wire.message import Message

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATING = (ROOT / "docs" / "operating-a-party.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.S)


def test_the_readmes_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {name for page in PAGES for name in re.findall(r"(?:^ +|`)make ([a-z]+)", page.read_text(), flags=re.M)}

    assert {"demo", "test", "lab"} <= named <= targets


def test_the_readmes_test_command_is_the_one_that_make_and_ci_run() -> None:
    (command,) = re.findall(r"^    pytest (.*)$", README, flags=re.M)

    assert f"pytest {command}" in (ROOT / "Makefile").read_text()
    assert set(command.split()) <= set((ROOT / ".ci/run").read_text().split())


def test_commands_in_the_pages_exist(capsys: pytest.CaptureFixture[str]) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:^    |`|bin/)fednb ([a-z]+)", pages, flags=re.M))
    assert {"up", "kernels", "party"} <= named
    for name in named:
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = {link for link in links if not (page.parent / link).exists()}

    assert missing == set()


def test_every_page_is_on_the_list_of_pages() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}

    assert {name for name in pages if f"]({name})" not in index} == set()


def test_the_federation_file_in_the_docs_is_valid_and_names_every_key(tmp_path: Path) -> None:
    (text,) = blocks(OPERATING, "toml")
    for file in ("loans.csv", "invoices.duckdb"):
        (tmp_path / file).touch()
    federation = config.parse(text, tmp_path / "federation.toml")
    assert list(federation.parties) == ["bank", "agency"] and federation.name == "credit"

    sections = (
        reader._Federation, reader._Party, reader._Coordinator, reader._Analyst, reader._Table, reader._Permit,
        reader._Online, config.LimitsConfig,
    )  # fmt: skip
    keys = {field for section in sections for field in section.__struct_fields__} - {"analysts", "limits", "online"}
    assert {key for key in keys if not re.search(rf"^(# )?{key} = ", text, flags=re.M)} == set()


def test_the_commands_that_enrol_members_parse_as_printed() -> None:
    lines = re.findall(r"^ {4}fednb ((?:hub|invite|join|members|audit|inbox) .*)$", OPERATING, flags=re.M)
    assert len(lines) >= 8
    for line in lines:
        plain = re.sub(r"\[[^\]]*\](?:\.\.\.)?", "", line).partition("#")[0]
        cli._parser().parse_args(shlex.split(plain))


def test_a_member_enrols_with_a_hub_that_runs_as_a_process(tmp_path: Path) -> None:
    from fednb.wire.dealer import DealerEndpoint
    from fednb.wire.keys import MemberHome

    def fednb(*words: str) -> str:
        command = [sys.executable, "-m", "fednb.cli", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout

    start = [sys.executable, "-m", "fednb.cli", "hub", "hub", "--create", "--bind", "tcp://127.0.0.1:0"]
    with subprocess.Popen(start, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as hub:
        try:
            assert hub.stdout is not None
            fingerprint = hub.stdout.readline().split()[-1]
            address = hub.stdout.readline().split()[-1]
            token = fednb("invite", "agency", "--home", "hub", "--address", address).strip()
            assert fingerprint in fednb("join", token)
            home = MemberHome.load(tmp_path / "agency")
            with pytest.raises(LinkError, match="does not know the key of agency"):
                DealerEndpoint(home, timeout=5.0)
            fednb("members", "hub", "confirm", "agency", home.identity.fingerprint)
            for _ in range(20):  # the hub looks at its roster twice a second
                try:
                    endpoint = DealerEndpoint(home, timeout=5.0)
                    break
                except LinkError:
                    threading.Event().wait(0.2)
            with endpoint:
                fednb("members", "hub", "revoke", "agency")
                with pytest.raises(LinkError, match="removed from"):
                    endpoint.open("hub", "x").recv(Message, timeout=30)
        finally:
            hub.terminate()


def test_the_simulated_script_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = [block for block in blocks(README, "python") if "fednb.simulate" in block]
    monkeypatch.chdir(tmp_path)
    demo.prepare(tmp_path / "fednb-demo", rows=2000)
    exec(compile(script, "README.md", "exec", dont_inherit=True), {"__name__": "__main__"})

    assert "AUC" in capsys.readouterr().out


def test_the_script_over_a_federation_has_25_lines() -> None:
    (script,) = [block for block in blocks(README, "python") if "fednb.connect()" in block]

    assert len(script.splitlines()) <= 25


def test_what_is_installed_beside_the_package_exists_and_nothing_is_left_out() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = [pattern for _, files in setup.items("options.data_files") for pattern in files.split()]
    assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []
    listed = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}
    folders = (ROOT / "kernels", ROOT / "extensions" / "lab")
    present = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*") if path.is_file()}
    present |= {f"fednb/notebook/widgets/{name}" for name in labextension.WIDGET}
    present |= {str(path.relative_to(ROOT)) for path in (ROOT / "demo_notebooks").glob("*.ipynb")}

    assert listed == present
