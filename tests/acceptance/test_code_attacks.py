"""Code that runs in the kernel of a real guarded member and tries to bring a row out, in every way we could think of.

Every value and every id of the table is marked, so whatever comes back is searched for a mark: prints, values, errors,
tracebacks, completions, inspections, captured values. Aggregates carry no mark: four digits do not show it.

What only the operating system can stop (reading the party's files as the same user, its memory, the network) is in
`OUTSIDE`: it runs where kernels are confined, and is skipped in a build without a sandbox.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fednb.federation import launch
from fednb.federation import messages as m
from fednb.federation.cells import CellClient, CellEvent
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome

SECONDS = 30.0
ROWS = 2_000
ID_MARK = "zzq7"  # every id begins with it
VALUE_MARK = ".7316"  # every income ends with it
FILE_MARK = "zzfile9"
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
mode = "guarded"
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.bank.tables.loans.roles]
region = "key"
age = {role = "key", cuts = [30, 40, 50, 60]}
secret = "hidden"
"""

FIND = "import gc, pandas as pd\n"
WALK = """
def walk(root, depth=6):
    seen, stack, found = set(), [(root, 0)], []
    while stack:
        at, d = stack.pop()
        if id(at) in seen or d > depth: continue
        seen.add(id(at))
        found.append(at)
        for name in dir(at) if d < 2 else []:
            try: stack.append((object.__getattribute__(at, name), d + 1))
            except Exception: pass
        try: stack += [(v, d + 1) for v in vars(at).values()]
        except TypeError: pass
        if isinstance(at, (list, tuple, set)): stack += [(v, d + 1) for v in at]
        if isinstance(at, dict): stack += [(v, d + 1) for v in at.values()]
    return found
"""
RAW = """
import os
from fednb.federation import messages as m
from fednb.federation.kernel_side import endpoint
from fednb.policy import plan as p
def raw(message, context="local"):
    talk = endpoint().open(os.environ.get("FEDNB_MEMBER", "bank"), context)
    talk.send(message)
    try:
        kinds = m.TableData, m.TableSchema, m.GateAnswer, m.Tables, m.ModelPart, m.Members, m.Ok, m.Failed
        return talk.recv(*kinds, timeout=3)
    finally:
        talk.close()
"""

ATTACKS = {
    # the handle as if it were a DataFrame
    "value of the handle": "df",
    "print": "print(df)",
    "head": "df.head()",
    "tail": "df.tail(5)",
    "sample": "df.sample(3)",
    "iloc": "df.iloc[7]",
    "loc": "df.loc[7]",
    "row by position": "df[7]",
    "slice": "df[0:5]",
    "column in a list": "print(list(df['income']))",
    "column by its values": "df['income'].values[7]",
    "to_numpy": "df['income'].to_numpy()",
    "numpy array of a column": "import numpy as np\nnp.array(df['income'])",
    "numpy array of the table": "import numpy as np\nnp.asarray(df)",
    "numpy sum that wants the data": "import numpy as np\nnp.sort(df['income'])",
    "DataFrame of the handle": "import pandas as pd\npd.DataFrame(df)",
    "Series of a column": "import pandas as pd\npd.Series(df['income'])",
    "interchange protocol": "import pandas as pd\npd.api.interchange.from_dataframe(df)",
    "concat": "import pandas as pd\npd.concat([df, df])",
    "crosstab by pandas": "import pandas as pd\npd.crosstab(df['region'], df['sme_id'])",
    "f-string": "f\"{df['income']!r} {df['sme_id']} {df!r}\"",
    "str of a filtered table": "print(str(df[df.region == 'north']))",
    "to_csv": "print(df.to_csv())",
    "to_dict": "df.to_dict('records')",
    "to_json": "df.to_json()",
    "iterrows": "for row in df.iterrows(): print(row)",
    "loop over the table": "for x in df: print(df[x])",
    "apply with a side list": "L = []\ndf['income'].apply(L.append)\nprint(L)",
    "map with a side list": "L = []\ndf['sme_id'].map(L.append)\nprint(L)",
    "largest": "df.nlargest(3, 'income')",
    "minimum and maximum": "print(df['income'].max(), df['income'].min())",
    "sort and take": "df.sort_values('income').iloc[-1]",
    "unique": "df['sme_id'].unique()",
    "mode": "df['income'].mode()",
    "display": "display(df, df['income'], df['sme_id'])",
    "display hook": "import sys\nsys.displayhook(df['income'])",
    "html of the handle": "df._repr_html_()",
    "plot of rows": "df['income'].plot()",
    "hash oracle": "hash(df['sme_id'])",
    "equality oracle": "bool(df['sme_id'] == 'zz' 'q70000007')",
    # aggregates turned against it
    "mean of ids": "df['sme_id'].mean()",
    "value_counts of ids": "df['sme_id'].value_counts()",
    "group by ids": "df.groupby('sme_id')['income'].mean()",
    "group by the measure": "df.groupby('income').size()",
    "filter by id": "df[df.sme_id == 'zz' 'q70000007']['income'].sum()",
    "filter by value": "df[df.income > 49000]['income'].mean()",
    "extreme quantile": "print(df['income'].quantile(0.9999), df['income'].quantile(0.0001))",
    "quantiles in a row": "[df['income'].quantile(q / 2000) for q in range(1, 2000, 100)]",
    "histogram with many bins": "df['income'].histogram(bins=50)",
    "describe": "df.describe()",
    "count of a note": "df['note'].value_counts()",
    "hidden column": "df['secret']",
    "hidden column in a plan": RAW + "raw(m.AskGate(p.Count(p.Table('loans'), ['secret'])))",
    # errors
    "an exception that carries a value": "raise ValueError(str(df['sme_id']))",
    "KeyError that carries a value": "{}[str(df['income'])]",
    "assert message": "assert False, df['income']",
    "text in arithmetic": "df.assign(x=df['note'] + 1)['x'].mean()",
    "a conversion that quotes": "df.assign(x=df['note'] * 2.0)['x'].mean()",
    "a join that quotes": "df.merge(df, on='note')",
    "traceback frames": "import sys\ntry:\n    df['nope']\nexcept Exception as e:\n    t = e.__traceback__\n"
    "    while t:\n        print(t.tb_frame.f_locals)\n        t = t.tb_next",
    "verbose tracebacks": "%xmode Verbose\ndf['income'].mean(1, 2, 3)",
    "class name": "type(str(df['sme_id']), (), {})()",
    "warning text": "import warnings\nwarnings.warn(str(df['sme_id']))",
    "logging": "import logging\nlogging.basicConfig(level=0, force=True)\n"
    "logging.debug('%s', df['sme_id'])\nfed.load('loans')",
    # the process
    "attributes of the handle": "print(vars(df), vars(df['income']))",
    "whatever hangs on the handle": WALK + "print([repr(x) for x in walk(df)])",
    "whatever hangs on fed": WALK + "print([repr(x) for x in walk(fed)])",
    "garbage collector's DataFrames": FIND + "[x for x in gc.get_objects() if isinstance(x, pd.DataFrame)]",
    "garbage collector's text": FIND + "print([x for x in gc.get_objects() if isinstance(x, (list, dict)) "
    "and 'zz' 'q7' in repr(x)[:100000] and 'walk' not in repr(x)[:100000]][:1] == [])",
    "own memory": "import re\nfound = 0\nfor line in open('/proc/self/maps'):\n"
    "    span, mode = line.split()[:2]\n    if not mode.startswith('rw'): continue\n"
    "    a, b = (int(x, 16) for x in span.split('-'))\n"
    "    with open('/proc/self/mem', 'rb', 0) as mem:\n        try:\n            mem.seek(a)\n"
    "            for hit in re.finditer(bytes([122, 122, 113, 55]) + rb'[0-9]{7}', mem.read(b - a)):\n"
    "                if hit.group()[4:] != b'0000007': print(hit.group())\n"  # the id that other attacks here guess
    "        except (OSError, ValueError, OverflowError): pass",
    "environment": "import os\nprint(dict(os.environ))",
    "command line": "print(open('/proc/self/cmdline').read())",
    "open files": "import os\nfor f in os.listdir('/proc/self/fd'):\n"
    "    try: print(os.readlink('/proc/self/fd/' + f))\n    except OSError: pass",
    "history": "%history -g",
    "inputs and outputs of before": "print(In, Out)",
    "modules": "import sys\nprint([m for m in sys.modules if 'tables' in m or 'sources' in m])",
    # Jupyter's other channels
    "comm": "from ipykernel.comm import Comm\nComm(target_name='x', data={'v': str(df['sme_id'])})",
    "widget": "import ipywidgets as w\nw.HTML(str(df['sme_id']))",
    "payload": "get_ipython().set_next_input(str(df['sme_id']))",
    "input": "input('?')",
    "page": "from IPython.core import page\npage.page(str(df['income']))",
    "publish to another channel": "get_ipython().kernel.session.send(get_ipython().kernel.iopub_socket, 'stream', "
    "{'name': 'stdout', 'text': str(df['sme_id'])})",
    "magic that reads files": "%load loans.csv",
    "magic that runs files": "%run loans.csv",
    "pinfo of a column": "df.income??",
    # the agent over its pipe
    "load by message": RAW + "raw(m.LoadTable('loans'))",
    "describe by message": RAW + "raw(m.Describe())",
    "load with a path": RAW + "raw(m.LoadTable('../loans'))",
    "save own ids and join": "%xmode Context\n"
    + RAW
    + "import pandas as pd\nfed.save('mine', pd.DataFrame({'sme_id': [chr(122) * 2 + 'q70000007']}), id='sme_id')\n"
    "df.merge(fed.load('mine'), on='sme_id')['income'].sum()",
    "coefficients": "fed.coefficients('run1')",
    "plan with an unknown node": RAW + "import msgspec\ntalk = endpoint().open('bank', 'local')\n"
    "class Evil(m.Message, tag='AskGate'):\n    question: dict\n"
    "talk.send(Evil({'node': 'Eval', 'code': 'open(\"/etc/passwd\").read()'}))\n"
    "talk.recv(m.Failed, m.GateAnswer, timeout=20)",
    "plan on the id": RAW + "raw(m.AskGate(p.Aggregate(p.Table('loans'), [p.Figure('mean', 'sme_id')], ['sme_id'])))",
    "plan with a table's path": RAW + "raw(m.AskGate(p.Aggregate(p.Table('../../loans.csv'), [p.Figure('size')])))",
    "plan that is deep": RAW + "x = p.Column('income')\nfor _ in range(3000): x = p.Unary('-', x)\n"
    "raw(m.AskGate(p.Aggregate(p.Columns(p.Table('loans'), [p.Named('x', x)]), [p.Figure('mean', 'x')])))",
    "plan with not-a-number": RAW
    + "raw(m.AskGate(p.Aggregate(p.Where(p.Table('loans'), p.Binary('<', p.Column('age'), "
    "p.Literal_(float('nan')))), [p.Figure('mean', 'income')])))",
    "kept under a path": RAW + "raw(m.KeepTable(p.Keep(p.Table('loans'), '../../../x', ['sme_id'])))",
    "kept, then loaded": "fed.save('kept', df.assign(x=df.income))\nfed.load('kept').head()",
    "row count of a kept filter": "fed.save('k2', df[df.income > 49000])",
    "cells of the hub's vocabulary": RAW + "raw(m.Execute('c', 'print(1)'), 'cells')",
    "runs of the coordinator's": RAW + "raw(m.ListRuns(), 'runs/x')",
    "a member's vocabulary": RAW + "raw(m.Describe(), 'member/x')",
    "another analyst's name": RAW + "os.environ['FEDNB_ANALYST'] = 'owner'\nraw(m.LoadTable('loans'))",
    "another mode": "import os\nos.environ['FEDNB_MODE'] = 'open'\n"
    "import importlib, fednb.federation.kernel_side as k\n"
    "importlib.reload(k)\nk.PartyFed(k.endpoint(), 'bank').load('loans').head()",
    "the gate in this process": "from fednb.policy.gate import Gate\nfrom fednb.federation.tables import TableStore\n"
    "TableStore('bank', {}).read('loans')",
}

# by path, by memory, over the network: for whoever runs as the agent's own user without a sandbox these are open
OUTSIDE = {
    "the table's file": "print(open({folder!r} + '/loans.csv').read())",
    "the table's file through pandas": "import pandas as pd\npd.read_csv({folder!r} + '/loans.csv')",
    "the table's file through a shell": "!cat {folder}/loans.csv",
    "the member's home": "import pathlib\nfor f in pathlib.Path({home!r}).rglob('*'):\n"
    "    print(f, f.read_bytes()[:200] if f.is_file() else '')",
    "relative paths": "import pathlib\nfor f in pathlib.Path('..').resolve().parent.rglob('*'):\n"
    "    print(f, f.is_file() and f.read_bytes()[:500])",
    "identity keys": "print(open({home!r} + '/identity.json').read())",
    "the audit log": "print(open({home!r} + '/audit/log.jsonl').read())",
    "environment of the agent": "import os\nprint(open('/proc/%d/environ' % os.getppid()).read())",
    "environment of all": "import glob\nfor path in glob.glob('/proc/[0-9]*/environ'):\n"
    "    try: print(open(path).read())\n    except OSError: pass",
    "memory of the agent": "import os\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n"
    "    if int(pid) == os.getpid(): continue\n    try:\n"
    "        if b'fednb' not in open('/proc/' + pid + '/cmdline', 'rb').read(): continue\n"
    "        for line in open('/proc/' + pid + '/maps'):\n"
    "            a, b = (int(x, 16) for x in line.split()[0].split('-'))\n"
    "            with open('/proc/' + pid + '/mem', 'rb', 0) as mem:\n"
    "                mem.seek(a)\n                data = mem.read(b - a)\n"
    "                at = data.find(bytes([122, 122, 113, 55]))\n"
    "                if at >= 0: print(data[at:at + 60])\n"
    "    except (OSError, ValueError, OverflowError): pass",
}

CONFINED = importlib.util.find_spec("fednb.policy.sandbox") is not None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[launch.Running]:
    folder = tmp_path_factory.mktemp("guarded")
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "sme_id": [f"{ID_MARK}{number:07d}" for number in range(ROWS)],
            "region": rng.choice(["north", "south", "east"], ROWS),
            "age": rng.integers(20, 75, ROWS),
            "income": [f"{20000 + 15 * number}{VALUE_MARK}" for number in rng.permutation(ROWS)],
            "note": [f"{ID_MARK}note{number}" for number in range(ROWS)],
            "secret": [f"{ID_MARK}secret{number % 3}" for number in range(ROWS)],
            "default": rng.integers(0, 2, ROWS),
        }
    )
    frame.to_csv(folder / "loans.csv", index=False)
    (folder / "federation.toml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("FEDNB_PROFILE", raising=False)
        patch.setenv("BANK_PASSWORD", FILE_MARK)  # the agent has it, for a database; its kernels must not
        with launch.up(folder / "federation.toml") as up:
            yield up


@pytest.fixture(scope="module")
def cells(running: launch.Running) -> Iterator[CellClient]:
    with DealerEndpoint(MemberHome.load(running.home)) as endpoint:
        client = CellClient(endpoint)
        yield client
        client.close()


def run(cells: CellClient, code: str, capture: tuple[str, ...] = ()) -> list[CellEvent]:
    cell = cells.execute(["bank"], code, capture=capture)
    events = []
    while cell.unfinished:
        got = cell.next(SECONDS)
        if got is None:
            cell.interrupt(kill=True)
            continue
        events.append(got[1])
    return events


def said(events: list[CellEvent]) -> str:
    """Everything that came back, as one text."""
    return "\n".join(str(event) for event in events)


def marks(text: str) -> list[str]:
    return [mark for mark in (ID_MARK, VALUE_MARK, FILE_MARK) if mark in text]


def load(cells: CellClient) -> None:
    events = run(cells, "df = fed.load('loans')")
    if not (isinstance(events[-1], m.CellDone) and events[-1].status == "ok"):  # the attack before broke its own kernel
        cells.restart("bank", timeout=SECONDS)
        events = run(cells, "df = fed.load('loans')")
    assert isinstance(events[-1], m.CellDone) and events[-1].status == "ok", said(events)


def test_the_marks_are_found_when_a_row_comes_out() -> None:
    assert marks(said([m.Stream("c", "stdout", f"{ID_MARK}0000007,north,30,20105{VALUE_MARK}")])) == [
        ID_MARK,
        VALUE_MARK,
    ]
    assert len(ATTACKS) + len(OUTSIDE) >= 76


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_code_in_a_guarded_kernel_brings_no_row_out(name: str, cells: CellClient) -> None:
    load(cells)
    text = said(run(cells, ATTACKS[name]))
    assert marks(text) == [], text[:3000]


@pytest.mark.slow
@pytest.mark.skipif(not CONFINED, reason="this build confines no kernels; see docs/security.md")
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_the_operating_system_has_to_stop_is_stopped(
    name: str, cells: CellClient, running: launch.Running
) -> None:
    home = running.root / "bank"
    code = (
        OUTSIDE[name]
        .replace("{folder!r}", repr(str(running.root.parent)))
        .replace("{folder}", str(running.root.parent))
    )
    code = code.replace("{home!r}", repr(str(home))).replace("{file}", "log")
    text = said(run(cells, code))
    assert marks(text) == [] and "seed" not in text and '"prev"' not in text, text[:3000]


@pytest.mark.slow
def test_completion_and_inspection_show_names_and_no_values(cells: CellClient) -> None:
    load(cells)
    for code in ("df.", "df.inc", "df['income'].", "fed.", "fed._gate.", "df._counter._fed._endpoint."):
        answer = cells.complete("bank", code, len(code), timeout=30)
        assert answer is None or marks(str(answer)) == []
        if code == "df.":
            assert answer is not None and "income" in str(answer.matches) and "secret" not in str(answer.matches)
    for code in ("df", "df.income", "fed.load", "df._rows"):
        found = cells.inspect("bank", code, len(code), detail=True, timeout=30)
        assert found is None or marks(str(found)) == []


@pytest.mark.slow
def test_values_asked_for_by_name_are_what_the_kernel_has(cells: CellClient) -> None:
    load(cells)
    for code in ("x = df", "x = df['income']", "x = [df]", "x = {'a': df['sme_id']}"):
        events = run(cells, code, capture=("x",))
        assert marks(said(events)) == [] and not [e for e in events if isinstance(e, m.Captured)]
    events = run(cells, "x = df.groupby('region')['income'].mean()", capture=("x",))
    assert [e for e in events if isinstance(e, m.Captured)] and marks(said(events)) == []


@pytest.mark.slow
def test_what_left_stands_on_the_receipt_and_in_the_log(cells: CellClient, running: launch.Running) -> None:
    load(cells)
    events = run(cells, "df.groupby('region')['income'].mean()")
    done = events[-1]
    assert isinstance(done, m.CellDone) and done.receipt is not None
    crossed = [each for each in done.receipt.crossed if each.what.startswith("mean of income by region, from loans")]
    assert [(each.to, each.values) for each in crossed] == [("analyst", 3)] and "size >= 10" in crossed[0].what
    refused = run(cells, "df.groupby('sme_id')['income'].mean()")
    assert "rule group" in said(refused) or "declined groups" in said(refused)
    log = (running.root / "bank" / "audit" / "log.jsonl").read_text().splitlines()
    entries: list[dict[str, Any]] = [json.loads(line) for line in log]
    released = [entry for entry in entries if entry["event"] == "released"]
    assert any(e["asked"].startswith("mean of income by region") and e["by"] == "analyst" for e in released)
    assert all(any(rule.startswith("leverage") for rule in entry["rules"]) for entry in released)
    assert any(entry["event"] == "declined" and entry["rule"] == "group" for entry in entries)


@pytest.mark.slow
def test_a_kept_table_can_be_aligned_and_the_ledger_outlives_the_kernel(
    cells: CellClient, running: launch.Running
) -> None:
    load(cells)
    events = run(
        cells, "fed.save('features', df.assign(ratio=df.income / df.age).fillna(0))\nfed.tables()['table'].tolist()"
    )
    assert "features" in said(events), said(events)
    ledger = running.root / "bank" / "ledger" / "ledger.log"
    before = ledger.stat().st_size
    assert before > 0 and ledger.stat().st_mode & 0o777 == 0o600
    assert (running.root / "bank" / "tables" / "features.parquet").exists()
    cells.restart("bank", timeout=SECONDS)
    load(cells)
    assert marks(said(run(cells, "print(fed.load('features').groupby('region')['ratio'].mean())"))) == []
    assert ledger.stat().st_size > before
    assert "features.plan" in os.listdir(running.root / "bank" / "plans")
