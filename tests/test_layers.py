"""Imports point downwards only, and what is dangerous or foreign stays in the one place that may have it.

Read off the source text, so an import inside a function counts like one at the top.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# a layer, and the layers it may see; `errors`, `text`, `typed` and `version` stand below all of them
LAYERS = {
    "config": set(),
    "wire": {"config"},
    "crypto": {"config"},
    "protocols": {"wire", "crypto", "config"},
    "policy": {"wire", "config"},
    "federation": {"wire", "policy", "protocols", "config"},
    "models": {"federation", "protocols", "config"},
    "notebook": {"models", "federation", "policy", "protocols", "crypto", "wire", "config"},
    "serving": {"models", "federation", "policy", "wire", "config"},
    "demo": {"notebook", "models", "federation", "protocols", "wire", "config"},
    "cli": {"demo", "serving", "notebook", "models", "federation", "policy", "protocols", "crypto", "wire", "config"},
    "__main__": {"cli"},
    "__init__": {"notebook", "models", "federation"},  # late and on demand only
}
BELOW_ALL = {"errors": {"text"}, "text": set(), "typed": set(), "version": set()}

# outside package -> the only places under fednb/ that may import it (a layer or a module)
KEPT_IN = {
    "zmq": {"wire", "federation.kernel_process"},  # a stock kernel speaks ZeroMQ to its own agent
    "nacl": {"wire", "crypto"},
    "cryptography": {"wire", "crypto"},
    "gmpy2": {"crypto"},
    "jupyter_client": {"federation", "notebook", "demo", "cli"},
    "ipykernel": {"federation", "notebook", "demo"},
    "IPython": {"federation", "notebook", "demo", "__init__"},
    "ipywidgets": {"notebook"},
    "anywidget": {"notebook"},
    "matplotlib": {"notebook", "federation.kernel_side"},
    "duckdb": {"federation"},
    "distributed": {"federation.cluster"},
    "optbinning": {"protocols.merging"},
    "mlflow": {"federation.tracking"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "asyncio": {"federation", "notebook", "demo"},
    "nbclient": {"demo"},
    "nbformat": {"demo"},
}

# never under fednb/: what came from another party must not become code, and a GPL library must not become a dependency
BANNED = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "phe", "torch", "ray"}


class Import(NamedTuple):
    """One import: the module that has it, the line, and what it names (dotted)."""

    module: str  # "wire.codec"
    line: int
    target: str  # "fednb.errors", "zmq.auth"
    typing_only: bool

    @property
    def place(self) -> str:
        return f"fednb.{self.module}, line {self.line}"


def modules(root: Path) -> dict[str, Path]:
    """Dotted name below `fednb` -> file; a package goes by its own name, the root by `__init__`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


def imports(root: Path) -> Iterator[Import]:
    known = modules(root)
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        blocks = [node for node in ast.walk(tree) if is_type_checking(node)]
        for_types = {id(node) for block in blocks for node in ast.walk(block)}
        for node in ast.walk(tree):
            for target in targets(node, module, path.name == "__init__.py", known):
                yield Import(module, node.lineno, target, id(node) in for_types)


def targets(node: ast.AST, module: str, is_package: bool, known: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            above = [] if module == "__init__" else module.split(".")
            above = above[: len(above) - node.level + (1 if is_package else 0)]
            source = ".".join(["fednb", *above, *([source] if source else [])])
        for alias in node.names:
            inner = f"{source}.{alias.name}".removeprefix("fednb.")
            if source == "fednb" and alias.name == "__version__":
                yield "fednb.version"
            elif source.split(".")[0] == "fednb" and inner in known:
                yield f"fednb.{inner}"
            else:
                yield source


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def layer(module: str) -> str:
    return module.split(".")[0]


def breaches(root: Path) -> list[str]:
    """Every edge that the tables above do not allow, in words."""
    wrong = []
    for edge in imports(root):
        here = layer(edge.module)
        package, _, inner = edge.target.partition(".")
        if package == "fednb":
            there = layer(inner) if inner else "__init__"
            if here in BELOW_ALL and there not in BELOW_ALL[here]:
                wrong.append(f"{edge.place}: {here} stands below everything and imports {edge.target}")
            elif here not in LAYERS and here not in BELOW_ALL:
                wrong.append(f"{edge.place}: {here!r} is no layer; name what it may see in tests/test_layers.py")
            elif here in LAYERS and there not in {here, *LAYERS[here], *BELOW_ALL}:
                wrong.append(f"{edge.place}: {here} may not see {there} ({edge.target})")
        elif package in BANNED:
            wrong.append(f"{edge.place}: {package} is banned from fednb/")
        elif package in KEPT_IN and not any(f"{edge.module}.".startswith(f"{at}.") for at in KEPT_IN[package]):
            wrong.append(f"{edge.place}: {package} belongs in {', '.join(sorted(KEPT_IN[package]))} only")
    return wrong


def cycle(root: Path) -> list[str]:
    """The modules of one import cycle, or nothing; late imports count, imports for type checkers do not."""
    known = modules(root)
    edges: dict[str, set[str]] = {module: set() for module in known}
    for edge in imports(root):
        inner = edge.target.removeprefix("fednb.")
        if edge.target.startswith("fednb.") and inner in known and inner != edge.module and not edge.typing_only:
            edges[edge.module].add(inner)
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for following in sorted(edges[module]):
            if found := visit(following, [*trail, module]):
                return found
        done.add(module)
        return []

    for module in sorted(known):
        if found := visit(module, []):
            return found
    return []


def declared() -> set[str]:
    """Names of distributions that setup.cfg asks for, core and extras, as pip normalises them."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"] + "\n".join(
        config.get("options.extras_require", extra) for extra in config.options("options.extras_require")
    )
    names = (re.split(r"[\s<>=!~\[;]", line.strip())[0] for line in lines.splitlines())
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names if name and not name.startswith(("#", "%"))}


def test_every_import_points_downwards() -> None:
    assert breaches(ROOT / "fednb") == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert " -> ".join(cycle(ROOT / "fednb")) == ""


def test_every_outside_package_that_is_imported_is_declared() -> None:
    homes = metadata.packages_distributions()
    outside = {
        edge.target.split(".")[0]: edge.place
        for edge in imports(ROOT / "fednb")
        if edge.target.split(".")[0] not in {"fednb", *sys.stdlib_module_names}
    }
    missing = {
        package: place
        for package, place in outside.items()
        if not any(re.sub(r"[-_.]+", "-", name).lower() in declared() for name in homes.get(package, []))
    }
    assert missing == {}, "add it to setup.cfg, with the lowest version that works"


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("wire/codec.py", "def late():\n    from fednb.crypto import paillier\n", "line 2: wire may not see crypto"),
        ("crypto/masking.py", "from ..wire import link\n", "crypto may not see wire (fednb.wire.link)"),
        ("protocols/psi.py", "from fednb import federation\n", "protocols may not see federation"),
        ("protocols/psi.py", "import zmq\n", "zmq belongs in federation.kernel_process, wire only"),
        ("federation/party.py", "import zmq.auth\n", "zmq belongs in federation.kernel_process, wire only"),
        ("models/logistic.py", "from fednb import connect\n", "models may not see __init__"),
        ("models/logistic.py", "import fednb.notebook.widgets\n", "models may not see notebook"),
        ("errors.py", "import fednb.wire\n", "errors stands below everything"),
        ("crypto/paillier.py", "import phe\n", "phe is banned"),
        ("wire/codec.py", "try:\n    import pickle\nexcept ImportError:\n    pass\n", "pickle is banned"),
        ("helpers/things.py", "import fednb.errors\n", "'helpers' is no layer"),
    ],
)  # fmt: skip
def test_a_forbidden_import_is_found_and_named(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    for name in ("errors", "wire/__init__", "wire/link", "federation/__init__"):
        (tmp_path / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").touch()
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source)

    assert len(breaches(tmp_path)) == 1
    assert complaint in breaches(tmp_path)[0]


def test_a_circle_through_a_late_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "wire").mkdir()
    (tmp_path / "wire/a.py").write_text("from fednb.wire import b\n")
    (tmp_path / "wire/b.py").write_text("def late():\n    import fednb.wire.a\n")

    assert cycle(tmp_path) == ["wire.a", "wire.b", "wire.a"]
