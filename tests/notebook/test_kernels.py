"""A real notebook kernel, with members whose cells run in real kernels of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

SECONDS = 60.0
SETUP = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import loopback_members as w; s = w.start()"


class Notebook:
    """One kernel and what its cells put out."""

    def __init__(self) -> None:
        self.manager = KernelManager(kernel_name="python3", transport="ipc")
        self.manager.start_kernel()
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def run(
        self, code: str, on_message: Callable[[dict[str, Any]], None] = lambda message: None
    ) -> list[dict[str, Any]]:
        """Outputs of a cell: iopub messages, and the reply at the end."""
        request = self.client.execute(code)
        got: list[dict[str, Any]] = []
        while True:
            message = self.client.get_iopub_msg(timeout=SECONDS)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
            got.append(message)
            on_message(message)
        while True:
            reply = self.client.get_shell_msg(timeout=SECONDS)
            if reply["parent_header"].get("msg_id") == request:
                return [*got, reply]

    def ok(self, code: str) -> list[dict[str, Any]]:
        got = self.run(code)
        assert got[-1]["content"]["status"] == "ok", got[-1]["content"]
        return got

    def value(self, expression: str) -> str:
        got = self.ok(expression)
        return next(str(g["content"]["data"]["text/plain"]) for g in got if g["msg_type"] == "execute_result")

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def text(got: list[dict[str, Any]], name: str = "stdout") -> str:
    return "".join(g["content"]["text"] for g in got if g["msg_type"] == "stream" and g["content"]["name"] == name)


def displays(got: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [g["content"]["data"] for g in got if g["msg_type"] in ("display_data", "execute_result")]


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    made = Notebook()
    try:
        made.ok(SETUP)
        yield made
    finally:
        made.close()


def test_a_cell_runs_in_the_partys_kernel_and_not_here(notebook: Notebook) -> None:
    notebook.ok("import os; here = os.getpid(); only_here = 1")
    got = notebook.ok("%%party bank\nimport os\nonly_there = 2\nprint(os.getpid())")
    assert text(got).strip() != notebook.value("here")
    assert notebook.value("'only_there' in globals()") == "False"
    got = notebook.run("%%party bank\nonly_here")
    assert got[-1]["content"]["ename"] == "RemoteError" and "NameError" in got[-1]["content"]["evalue"]


def test_rich_output_figures_and_updates_come_out_under_the_cell(notebook: Notebook) -> None:
    got = notebook.ok("%%party bank\nimport pandas as pd\npd.DataFrame({'a': [1, 2]})")
    assert '<table border="1" class="dataframe">' in displays(got)[0]["text/html"]
    got = notebook.ok("%%party bank\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 3, 2])")
    assert len(displays(got)[0]["image/png"]) > 1000
    got = notebook.ok("%%party bank\nh = display('one', display_id=True)\nh.update('two')")
    kinds = [g["msg_type"] for g in got[:-1] if "display" in g["msg_type"]]
    assert kinds == ["display_data", "update_display_data"]
    shown = [g["content"] for g in got[:-1] if "display" in g["msg_type"]]
    assert shown[0]["transient"]["display_id"] == shown[1]["transient"]["display_id"]
    assert shown[1]["data"]["text/plain"] == "'two'"
    got = notebook.ok(
        "%%party bank\nfrom IPython.display import clear_output\nprint('old')\nclear_output()\nprint('new')"
    )
    assert "clear_output" in [g["msg_type"] for g in got]


def test_hostile_output_of_a_party_is_inert_in_the_notebook(notebook: Notebook) -> None:
    got = notebook.ok(
        "%%party bank\n"
        "from IPython.display import HTML, Javascript, SVG, Markdown\n"
        "display(HTML('<b>bold</b><img src=x onerror=alert(1)><style>body{display:none}</style>'))\n"
        "display(Javascript('alert(1)'))\n"
        'display(SVG(\'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>\'))\n'
        "display({'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}, 'text/plain': 'w'}, raw=True)\n"
        "print('\\x1b]0;owned\\x07done')"
    )
    everything = str([g["content"] for g in got[:-1] if g["msg_type"] != "execute_input"])
    assert "onerror" not in everything and "alert(1)" not in everything and "widget-view" not in everything
    assert "<b>bold</b>" in everything and '<img alt="SVG" src="data:image/svg+xml;base64,' in everything
    assert text(got) == "done\n"


def test_progress_bars_are_live(notebook: Notebook) -> None:
    seen: list[str] = []
    code = (
        "%%party bank,agency\nimport sys, threading\nfor i in (1, 2):\n"
        "    print(f'\\r{i * 50}%', end='', file=sys.stderr, flush=True)\n    threading.Event().wait(0.4)"
    )

    def watch(message: dict[str, Any]) -> None:
        seen.append(message["content"].get("data", {}).get("text/plain", ""))

    notebook.run(code, watch)
    assert "── bank (running) ──\n50%" in seen and "── bank (running) ──\n100%" in seen


def test_remote_errors_point_at_the_users_own_line(notebook: Notebook) -> None:
    got = notebook.run("%%party bank\nx = 1\nraise ValueError('too few rows')")
    error = next(g["content"] for g in got if g["msg_type"] == "error")
    shown = "\n".join(error["traceback"])
    assert "── bank ──" in shown and "ValueError" in shown and "line 2" in shown and "too few rows" in shown
    assert "magics.py" not in shown and "fednb/" not in shown


def test_interrupting_the_notebook_interrupts_every_party_and_keeps_their_variables(notebook: Notebook) -> None:
    notebook.ok("%%party bank,agency\nkept = 5")
    begun: set[str] = set()

    def interrupt(message: dict[str, Any]) -> None:
        shown = message["content"].get("data", {}).get("text/plain", "")
        for member in ("bank", "agency"):
            if shown.startswith(f"── {member} (running)") and "begun" in shown and member not in begun:
                begun.add(member)
                if len(begun) == 2:
                    notebook.manager.interrupt_kernel()

    got = notebook.run(
        "%%party bank,agency\nimport threading\nprint('begun', flush=True)\nthreading.Event().wait(50)", interrupt
    )
    assert got[-1]["content"]["ename"] == "RemoteError"
    assert got[-1]["content"]["evalue"].count("KeyboardInterrupt") == 2
    assert text(notebook.ok("%%party bank\nprint(kept)")) == "5\n"


def test_a_cell_that_defies_interrupts_is_killed_at_the_second_and_the_agent_stays(notebook: Notebook) -> None:
    def interrupt(message: dict[str, Any]) -> None:
        words = message["content"].get("text", "")
        if "begun" in words or "Interrupting the cell at bank" in words:
            notebook.manager.interrupt_kernel()

    code = "%%party bank\nimport signal, threading\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    got = notebook.run(code + "print('begun', flush=True)\nthreading.Event().wait(50)", interrupt)
    assert "KernelDied" in got[-1]["content"]["evalue"]
    assert text(notebook.ok("%%party bank\nprint('back')")) == "back\n"


def test_a_protocol_only_party_refuses_cells(notebook: Notebook) -> None:
    got = notebook.run("%%party vault\n1")
    assert got[-1]["content"]["ename"] == "Refused"
    assert "protocol-only" in got[-1]["content"]["evalue"]


def test_timeout_names_the_late_party(notebook: Notebook) -> None:
    got = notebook.run(
        "%%party bank,agency --timeout 0.5\nimport threading\nif 'slow' in globals(): pass\nthreading.Event().wait(50)"
    )
    assert got[-1]["content"]["ename"] == "LinkTimeout"
    assert "at bank, agency" in got[-1]["content"]["evalue"]


def test_output_of_a_background_cell_stays_in_its_own_place(notebook: Notebook) -> None:
    notebook.ok("%%party bank\nimport threading")
    got = notebook.ok("%%party bank --noblock\nprint('one', flush=True)\nthreading.Event().wait(0.5)\nprint('two')")
    assert "running" in next(g["content"]["data"]["text/plain"] for g in got if g["msg_type"] == "execute_result")
    place = next(g["content"]["transient"]["display_id"] for g in got if g["msg_type"] == "display_data")
    got = notebook.ok("pending = _\nprint('mine')\npending.result(30)")
    assert text(got) == "mine\n"
    updates = [g["content"] for g in got if g["msg_type"] == "update_display_data"]
    assert {update["transient"]["display_id"] for update in updates} == {place}
    assert updates[-1]["data"]["text/plain"].endswith("one\ntwo")
    assert notebook.value("pending") == "<cell at bank: done>"


def test_completion_and_inspection_are_the_partys(notebook: Notebook) -> None:
    notebook.ok("%%party bank\nloans_of_the_bank = [1, 2]")
    code = "%%party bank\nloans_of"
    reply = notebook.client.complete(code, reply=True, timeout=SECONDS)
    assert reply["content"]["matches"] == ["loans_of_the_bank"]
    assert code[reply["content"]["cursor_start"] :] == "loans_of"
    code = "%%party bank\nloans_of_the_bank"
    reply = notebook.client.inspect(code, len(code), reply=True, timeout=SECONDS)
    assert reply["content"]["found"] and "list" in reply["content"]["data"]["text/plain"]
    assert reply["content"]["data"]["text/plain"].startswith("[bank]")


def test_run_all_stops_at_a_remote_error_and_the_file_reads_without_a_kernel() -> None:
    cells = [
        SETUP,
        "%%party bank,agency\nprint('rows: 5')\nimport pandas as pd\npd.DataFrame({'amount': [7]})",
        "%%party bank,agency\nif __import__('os').getcwd().count('bank'): 1 / 0\nprint('finished')",
        "print('never reached')",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(CellExecutionError, match="── bank ──"):
        NotebookClient(book, timeout=SECONDS, kernel_name="python3").execute()
    nbformat.validate(book)
    grouped = [output["data"]["text/plain"] for output in book.cells[1].outputs]
    assert [shown.split(" (")[0] for shown in grouped] == ["── bank", "── agency"]
    assert all("rows: 5" in shown and "amount" in shown for shown in grouped)
    assert "finished" in book.cells[2].outputs[1]["data"]["text/plain"]
    assert book.cells[2].outputs[-1]["ename"] == "RemoteError"
    assert book.cells[3].outputs == []
    page, _ = HTMLExporter().from_notebook_node(book)
    assert "rows: 5" in page and "amount" in page and "ZeroDivisionError" in page
