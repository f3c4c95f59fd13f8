"""When the other party is gone, late, unwilling or changed: an answer says so, and never passes for a federated one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from serving_world import FILE, Served, World, serving

from fednb.errors import ConfigError
from fednb.models import saved
from fednb.serving.run import Options, run

pytestmark = pytest.mark.slow

ID = "S-017"


@pytest.fixture
def alone(world: World) -> list[object]:
    """A service without a fallback."""
    return ["--model", world.folder / "model.json", "--table", "loans", "--timeout", "3"]


def not_federated(said: dict[str, object]) -> bool:
    return not said["federated"]


def test_a_party_that_is_killed_is_missed_at_once_and_federated_scores_come_back_with_it(
    world: World, regression: Served, alone: list[object]
) -> None:
    with serving(world.bank, *alone) as lonely:
        lonely.until(lambda said: bool(said["federated"]))
        assert regression.score(ID)["status"] == "federated"
        world.kill("agency")
        answer = regression.score(ID)
        assert (answer["status"], answer["cause"]) == ("fallback", "missing") and "agency" in answer["why"]
        assert answer["score"] == pytest.approx(world.alone[ID], abs=1e-9) and answer["scores"]["federated"] is None
        refused = lonely.score(ID, code=503)
        assert (refused["status"], refused["score"], refused["cause"]) == ("refused", None, "missing")
        assert refused["scores"] == {"federated": None, "fallback": None}
        assert lonely.client.get("/ready").status_code == 503 and regression.client.get("/ready").status_code == 200
        assert lonely.client.get("/health").status_code == 200
        (entry,) = [line for line in lonely.log() if line.get("request_id") == refused["request_id"]]
        assert (entry["status"], entry["http"]) == ("refused", 503)
        world.start("agency")
        for served in (regression, lonely):
            served.until(lambda said: bool(said["federated"]))
            score = served.score(ID)
            assert score["status"] == "federated"
            assert score["score"] == pytest.approx(world.scores.loc[ID, "regression"], abs=1e-9)


def test_a_party_that_hangs_is_waited_for_no_longer_than_the_timeout(world: World, regression: Served) -> None:
    regression.until(lambda said: bool(said["federated"]))
    agency = world.running.members["agency"]
    agency.send_signal(signal.SIGSTOP)
    try:
        answer = regression.score(ID)
        assert (answer["status"], answer["cause"]) == ("fallback", "timeout")
        assert 2900 < answer["latency_ms"] < 20_000
    finally:
        agency.send_signal(signal.SIGCONT)
    regression.until(lambda said: bool(said["federated"]))
    assert regression.score(ID)["status"] == "federated"


def test_the_service_finds_its_own_member_again(world: World, regression: Served) -> None:
    regression.until(lambda said: bool(said["federated"]))
    world.kill("bank")
    answer = regression.score(ID, code=503)  # the fallback's part lies with the member, too
    assert (answer["status"], answer["cause"]) == ("refused", "missing") and "bank" in answer["why"]
    world.start("bank")
    regression.until(lambda said: bool(said["federated"]))
    assert regression.score(ID)["score"] == pytest.approx(world.scores.loc[ID, "regression"], abs=1e-9)


def test_a_file_that_was_changed_is_not_served(world: World, tmp_path: Path) -> None:
    path, kept = tmp_path / "model.json", saved.read(world.folder / "model.json", saved.Saved)
    path.write_text((world.folder / "model.json").read_text().replace('"rows": 200', '"rows": 201'))
    assert "its checksum does not fit" in told(world, path)
    saved.write(path, msgspec.structs.replace(kept, seals=kept.seals | {"bank": "0" * 64}))
    assert "bank's part of the model is not the one that was saved" in told(world, path)
    saved.write(path, msgspec.structs.replace(kept, label="agency.default"))
    assert "it is served where that label is, not at bank" in told(world, path)
    assert "which is not served" in told(world, world.folder / "own.json")
    assert "holds a VerticalLogisticRegression of bank, agency; a fallback is" in told(world, path, fallback=path)
    assert "bank has no table 'loan'" in told(world, world.folder / "model.json", table="loan")
    assert "given by scorecards only" in told(world, world.folder / "model.json", reasons=1)
    saved.write(path, msgspec.structs.replace(kept, seals=kept.seals | {"agency": "0" * 64}))
    with serving(world.bank, "--model", path, "--table", "loans") as served:
        served.until(lambda said: "preparing" not in str(said["why"]))
        refused = served.score(ID, code=409)
        assert "agency's part of the model is not the one that was saved" in refused["why"]


def test_what_the_other_owner_does_not_allow_is_told_and_not_scored(
    world: World, regression: Served, alone: list[object]
) -> None:
    for _ in range(3):
        regression.until(lambda said: bool(said["federated"]))
        assert regression.score(ID)["status"] == "federated"
    spared = ("--fallback", world.folder / "own.json", "--fallback-on", "missing,timeout")
    world.kill("agency")
    world.start("agency", FILE.replace("requests_a_day = 40", "requests_a_day = 2"))
    with serving(world.bank, *alone, *spared) as strict:
        strict.until(lambda said: "preparing" not in str(said["why"]))
        answer = strict.score(ID, code=403)
        assert (answer["status"], answer["cause"], answer["score"]) == ("refused", "refused", None)
        assert "agency answers 2 requests a day of bank's service" in answer["why"]
        assert "the owner has no fallback" in answer["why"]
    answer = regression.score(ID)
    assert (answer["status"], answer["score"]) == ("fallback", pytest.approx(world.alone[ID], abs=1e-9))


def told(world: World, model: Path, **options: Any) -> str:
    """Why it is not served."""
    with pytest.raises(ConfigError) as caught:
        run(Options(world.bank, model, **options), ready=lambda address: pytest.fail("it is served"))
    return str(caught.value)
