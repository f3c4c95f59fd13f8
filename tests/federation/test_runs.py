"""What the coordinator keeps of a run outlives it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import ConfigError, DataError
from fednb.federation import digests
from fednb.federation import messages as m
from fednb.federation.compared import table, together
from fednb.federation.runs import RunRecord, RunStore, follows, single
from fednb.federation.store import MemberStore
from fednb.models import OwnLogisticRegression, SecureBoostClassifier, VerticalLogisticRegression, compare_scores
from fednb.protocols import lookup
from fednb.protocols.base import Params, Protocol, Role


def test_a_run_with_released_coefficients_is_there_after_a_restart(tmp_path: Path) -> None:
    info = m.RunInfo(
        run="ab12",
        protocol="vertical_logistic",
        title="a fit",
        status="running",
        started=time.time(),
        seconds=0.0,
        by="ann",
        cast={"passive": ["agency"]},
    )
    record = RunStore(tmp_path).begin(info)
    result = m.MemberResult("passive", {"coef": np.array([0.25, -1.5]), "features": ["a", "b"]})
    record.end(m.RunEnded(run="ab12", status="ok", results={"agency": result}, seconds=1.0))
    assert not list(tmp_path.glob("*.draft"))
    again = RunStore(tmp_path).get("ab12")
    assert again.info.status == "ok" and again.ended is not None
    assert again.ended.results["agency"].public["coef"] == [0.25, -1.5]


def info(run: str, protocol: str = "vertical_logistic", **more: Any) -> m.RunInfo:
    about = {"title": protocol, "status": "ok", "started": 0.0, "seconds": 1.0, "by": "analyst", "cast": {}}
    return m.RunInfo(**{"run": run, "protocol": protocol, **about, **more})


def test_fits_stand_beside_each_other_with_what_differs_and_their_latest_evaluation() -> None:
    infos = [
        info("e3", "evaluation", follows="s1", figures={"auc": 0.72}),
        info("e2", "evaluation", follows="s2", figures={"auc": 0.81}),
        info("e1", "evaluation", follows="s1", figures={"auc": 0.70}),
        info("s2", "vertical_score", follows="f2"),
        info("f2", params={"C": 1.0, "tol": 0.1}, figures={"n_iter": 9.0}),
        info("s1", "vertical_score", follows="f1"),
        info("f1", params={"C": 0.1, "tol": 0.1}, figures={"n_iter": 7.0}),
        info("f0", status="failed"),
    ]
    found = table(infos, (), ("vertical_logistic",)).set_index("run")
    assert list(found.index) == ["f2", "f1"] and "tol" not in found
    assert found["C"].to_dict() == {"f2": 1.0, "f1": 0.1}
    assert found["auc"].to_dict() == {"f2": 0.81, "f1": 0.72} and found["n_iter"].to_dict() == {"f2": 9.0, "f1": 7.0}
    assert table(infos, ["f1", "e1"], ()).shape[0] == 2
    with pytest.raises(DataError, match="no run f9"):
        table(infos, ["f9"], ())


def test_what_is_listed_with_a_run_is_small() -> None:
    given = {"C": 1.0, "warm_start": False, "clip": None, "cuts": {"bank": {}}, "long": "x" * 201, "merge": "tree"}
    assert single(given) == {"C": 1.0, "warm_start": False, "clip": None, "merge": "tree"}
    assert follows([m.DataRef(), m.DataRef(part="r1")]) == "r1" and follows([m.DataRef(parts=["r2", "r3"])]) == "r2"
    record = RunRecord(info("r"), None)
    public = {"auc": {"value": 0.8, "low": 0.7}, "rows": 9, "notes": ["n"], "converged": True}
    record.end(m.RunEnded(run="r", status="ok", results={"bank": m.MemberResult(role="active", public=public)}))
    assert record.info.figures == {"auc": 0.8, "rows": 9.0, "converged": 1.0}


def test_a_simulations_fits_can_be_compared_and_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2))
    ids = [f"k{i:03d}" for i in range(120)]
    y = (X.sum(axis=1) + rng.logistic(size=120) > 0).astype(int)
    tables = {
        "bank": {"own": pd.DataFrame({"id": ids, "a": X[:, 0], "default": y})},
        "agency": {"own": pd.DataFrame({"id": ids, "b": X[:, 1]})},
    }
    with fednb.simulate(tables, decryption_quota=5) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        models = [VerticalLogisticRegression(C=C, max_iter=1).fit(frame, y="bank.default") for C in (0.1, 1.0)]
        expected = models[0].evaluate(frame).auc
        found = federation.compare_runs().set_index("run")
        assert found.loc[models[0].run_, "auc"] == pytest.approx(expected)
        assert np.isnan(found.loc[models[1].run_, "auc"]) and found["C"].tolist() == [1.0, 0.1]
        assert list(federation.compare_runs([models[0].run_])["run"]) == [models[0].run_]
        own = OwnLogisticRegression().fit(frame, y="bank.default")
        boosted = SecureBoostClassifier(n_estimators=1, max_depth=1).fit(frame, y="bank.default")
        assert set(federation.compare_runs()["run"]) == {own.run_, boosted.run_, *found.index}
        compare_scores(models[0].predict_proba(frame), own.predict_proba(frame), "bank.default")
        assert federation.compare_runs().set_index("run").loc[models[0].run_, "auc"] == pytest.approx(expected), (
            "what another model has more is no figure of this one"
        )
        figure = federation.runs_figure([model.run_ for model in models])
        first, second = figure.view().results.values()
        assert first.auc.low < expected < first.auc.high and second.auc.value is None
        assert [len(points) for points in figure.view().curves.values()] == [1, 1]
        assert figure.view().curve == "gradient norm" and f"AUC {expected:.4f}" in repr(figure)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need more of MLflow
        where = f"file://{tmp_path}"
        made = federation.export_mlflow(tracking_uri=where)
        assert set(made) == {own.run_, boosted.run_, *(model.run_ for model in models)}
        assert federation.export_mlflow(tracking_uri=where) == made, "nothing is written twice"
        from mlflow import MlflowClient

        run = MlflowClient(tracking_uri=where).get_run(made[models[0].run_])
        assert run.data.params["C"] == "0.1" and run.info.status == "FINISHED"
        (known,) = [each for each in federation.list_runs(1000) if each.run == models[0].run_]
        assert set(known.data) == {"bank", "agency"} and set(known.code) == {"bank", "agency", "coordinator"}
        assert run.data.tags["fednb.data.bank"] == known.data["bank"]
        assert run.data.tags["fednb.code.coordinator"] == known.code["coordinator"]
        assert run.data.metrics["auc"] == pytest.approx(expected)
        steps = MlflowClient(tracking_uri=where).get_metric_history(run.info.run_id, "gradient_norm")
        assert [step.value for step in steps] == pytest.approx(models[0].history_["gradient_norm"].tolist())
        receipts = Path(run.info.artifact_uri.removeprefix("file://")) / "receipts.csv"
        assert "Residuals" in receipts.read_text()
        with pytest.raises(DataError, match="no run f9 that has ended"):
            federation.export_mlflow(["f9"], tracking_uri=where)
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(ConfigError, match=r"pip install 'fednb\[mlflow\]'"):
            federation.export_mlflow(tracking_uri=where)


def test_runs_on_the_same_table_have_the_same_digest_and_nobody_can_guess_it() -> None:
    store, other = MemberStore(), MemberStore()
    assert digests.of_data(store, "a table") == digests.of_data(store, "a table") != digests.of_data(store, "another")
    assert digests.of_data(other, "a table") != digests.of_data(store, "a table")
    assert together({"bank": "1", "agency": "2"}) == together({"agency": "2", "bank": "1"}) != together({"bank": "1"})


def test_the_code_of_a_protocol_of_ones_own_counts(tmp_path: Path) -> None:
    made = []
    for text in ("def role(link, data, params, run): pass", "def role(link, data, params, run): return 1"):
        (tmp_path / "own.py").write_text(text)
        names: dict[str, Any] = {}
        exec(compile(text, str(tmp_path / "own.py"), "exec"), names)
        made.append(digests.of_code(Protocol("own", 1, Params, {"role": Role(names["role"])}, {})))
    assert len({*made, digests.of_code(lookup("evaluation"))}) == 3
    assert digests.of_code(lookup("evaluation")) == digests.of_code(lookup("psi"))
