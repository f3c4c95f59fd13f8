"""What a cell would do, read off its text: for an owner who decides whether it may run.

It is an aid for reading and no check: Python can be made to do things that no such reading shows. What holds a cell
back is the sandbox that it runs in, and that its outputs wait until the owner has seen them.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections.abc import Iterable

import msgspec

from fednb.errors import Refused
from fednb.text import plain

MOST_CODE = 100_000  # characters
_LOADS, _SAVES = ("load",), ("save", "lock")  # methods of `fed`
_HIDES = {"eval", "exec", "compile", "getattr", "setattr", "delattr", "vars", "globals", "locals", "__import__"}
_FILES = {"open", "read_csv", "read_parquet", "read_sql", "read_json", "read_pickle", "to_csv", "to_parquet", "to_json"}
_FILES |= {"to_pickle", "savefig", "Path"}
_SYSTEM = {"os", "sys", "subprocess", "socket", "ctypes", "importlib", "pickle", "shutil", "inspect", "gc", "urllib"}
_OUT = {"print", "display", "show", "print_exc", "warn"}


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in a cell; each list in the order of the text, without repetitions."""

    imports: list[str]
    tables: list[str]  # that `fed.load` names
    columns: list[str]  # text in brackets or after a dot of what looks like a table
    outputs: list[str]  # calls that say something; the last line's value too
    attention: list[str]  # "line 3: eval hides what it does", ...


def parse(code: str, member: str = "") -> ast.Module:
    """The cell as Python alone understands it.

    Raises Refused for what only IPython does (%magics, !commands), and for text that does not show as it is.
    """
    if len(code) > MOST_CODE:
        raise Refused(
            f"this cell has {len(code):,} characters; one that a person has to read may have {MOST_CODE:,}.",
            member=member,
            rule="approval",
        )
    if plain(code, len(code)) != code:
        raise Refused(
            f"this cell has invisible or control characters in it, and {member or 'the owner'} has to see what it "
            "approves. Type it anew.",
            member=member,
            rule="approval",
        )
    try:
        tree = ast.parse(code)
        ast.dump(tree)  # is it nested too deep to be walked?
        return tree
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" at line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise Refused(
            f"{member or 'the owner'} can only approve plain Python, and this cell is none{line}: "
            f"{getattr(error, 'msg', type(error).__name__)}. Leave out %magics and !commands.",
            member=member,
            rule="approval",
        ) from None


def digest(code: str) -> str:
    """The same for cells that differ in comments, blanks and line breaks only."""
    return hashlib.sha256(b"fednb cell " + ast.dump(parse(code)).encode()).hexdigest()


def read(code: str) -> Reading:
    """Raises Refused when it is no Python."""
    tree = parse(code)
    found = _Reader()
    found.visit(tree)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr) and not _named(last.value) & _OUT:
        found.outputs.append(f"the value of line {last.lineno}")
    return Reading(*(list(dict.fromkeys(each)) for each in (
        found.imports, found.tables, found.columns, found.outputs, found.attention
    )))  # fmt: skip


def difference(before: str, after: str) -> list[str]:
    """The lines of a unified difference; none when the text is the same."""
    lines = before.splitlines(), after.splitlines()
    return list(difflib.unified_diff(*lines, "approved before", "asked now", lineterm=""))


class _Reader(ast.NodeVisitor):
    def __init__(self) -> None:
        self.imports: list[str] = []
        self.tables: list[str] = []
        self.columns: list[str] = []
        self.outputs: list[str] = []
        self.attention: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        self._import(node, (alias.name for alias in node.names))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        self._import(node, (f"{module}.{alias.name}" for alias in node.names))

    def visit_Call(self, node: ast.Call) -> None:
        of = node.func.value if isinstance(node.func, ast.Attribute) else None
        if isinstance(node.func, ast.Attribute) and isinstance(of, ast.Name) and of.id == "fed":
            self._fed(node, node.func.attr)
        name = next(iter(_named(node)), "")
        if name in _HIDES:
            self._note(node, f"{name} can hide what it does")
        if name in _FILES:
            self._note(node, f"{name} reads or writes a file")
        if name in _OUT:
            self.outputs.append(f"{name} at line {node.lineno}")
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr.startswith("__") and node.attr.endswith("__"):
            self._note(node, f"{node.attr} reaches into Python itself")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if not node.id.isascii():
            self._note(node, f"the name {node.id!r} may look like another one")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        for each in ast.walk(node.slice):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                self.columns.append(each.value)
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.outputs.append(f"an error at line {node.lineno}")
        self.generic_visit(node)

    def _fed(self, node: ast.Call, method: str) -> None:
        first = node.args[0] if node.args else None
        if method in _LOADS:
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                self.tables.append(first.value)
            else:
                self._note(node, "the table that it loads is not named in the text, and will not be there")
        elif method in _SAVES:
            self._note(node, f"fed.{method} does nothing in an approved cell")

    def _import(self, node: ast.AST, names: Iterable[str]) -> None:
        for name in names:
            self.imports.append(name)
            if name.split(".")[0] in _SYSTEM:
                self._note(node, f"{name} reaches beyond the data")

    def _note(self, node: ast.AST, text: str) -> None:
        self.attention.append(f"line {getattr(node, 'lineno', 0)}: {text}")


def _named(node: ast.AST) -> set[str]:
    """The name of what is called: the last part of it."""
    if not isinstance(node, ast.Call):
        return set()
    if isinstance(node.func, ast.Attribute):
        return {node.func.attr}
    return {node.func.id} if isinstance(node.func, ast.Name) else set()
