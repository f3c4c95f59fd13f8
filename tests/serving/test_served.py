"""Scores over HTTP by real processes: what a batch says, and what every answer says of itself."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from serving_world import Served, World, serving

from fednb import cli
from fednb.policy import audit

pytestmark = pytest.mark.slow

ID = "S-017"
TOKEN = "t" * 32


def features(world: World, id: str = ID) -> dict[str, float]:
    return {name: float(world.loans.loc[id, name]) for name in ("income", "PAY 0")}


def test_a_score_is_that_of_a_batch_by_features_and_by_table(world: World, regression: Served) -> None:
    for answer in (regression.score("s 017", features(world)), regression.score(ID)):
        assert answer["status"] == "federated" and answer["cause"] == answer["why"] == ""
        assert answer["score"] == pytest.approx(world.scores.loc[ID, "regression"], abs=1e-9)
        assert answer["scores"]["fallback"] == pytest.approx(world.alone[ID], abs=1e-9)
        assert answer["meaning"] == "probability" and answer["points"] is None
        assert answer["latency_ms"] > 0


def test_other_features_give_another_score(world: World, regression: Served) -> None:
    changed = features(world) | {"income": -2.0}
    assert regression.score(ID, changed)["score"] != pytest.approx(world.scores.loc[ID, "regression"], abs=1e-3)


def test_an_applicant_whom_the_other_party_does_not_know_falls_back_and_says_so(
    world: World, regression: Served
) -> None:
    answer = regression.score("stranger", features(world))
    assert (answer["status"], answer["cause"]) == ("fallback", "absent")
    assert answer["why"].startswith("agency has no row of this applicant")
    assert answer["score"] == answer["scores"]["fallback"] == pytest.approx(world.alone[ID], abs=1e-9)
    assert answer["scores"]["federated"] is None and answer["model"]["kind"] == "OwnLogisticRegression"


def test_an_applicant_of_nobodys_table_is_not_found(regression: Served) -> None:
    answer = regression.score("stranger", code=404)
    assert (answer["status"], answer["cause"], answer["score"]) == ("refused", "unknown", None)


def test_which_model_answers_can_be_asked(world: World, regression: Served) -> None:
    model = regression.client.get("/v1/model").json()
    answer = regression.score(ID)
    assert {name: model[name] for name in ("kind", "version", "checksum")} == answer["model"]
    assert model["features"] == {"income": "number", "PAY 0": "number"} and model["parties"] == {"bank": 2, "agency": 4}
    assert model["fallback"]["kind"] == "OwnLogisticRegression" and model["label"] == "bank.default"


def test_points_and_reasons_of_a_scorecard_and_its_overrides_on_another_address(world: World, tmp_path: Path) -> None:
    """Which takes a token and a certificate."""
    files = ("--model", world.folder / "card.json", "--fallback", world.folder / "spare.json")
    door = ("--host", "0.0.0.0", *opened(tmp_path), "--token", tmp_path / "token")
    known = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    with serving(world.bank, *files, *door, "--reasons", 1, "--log-applicants", verify=known, token=TOKEN) as served:
        assert served.client.base_url.scheme == "https"
        assert served.client.get("/ready", headers={"Authorization": "Bearer wrong"}).status_code == 401
        served.until(lambda said: said["federated"])
        answer = served.score(ID, features(world))
        (entry,) = [line for line in served.log() if line.get("request_id") == answer["request_id"]]
        assert (entry["applicant"], entry["features"]) == (ID, features(world)), "as the owner said"
        assert answer["points"] == pytest.approx(world.scores.loc[ID, "points"], abs=1e-9)
        assert answer["score"] == pytest.approx(world.scores.loc[ID, "card"], abs=1e-9)
        assert {(reason["party"], reason["feature"]) for reason in answer["reasons"]} <= {
            *(("bank", name) for name in ("income", "PAY 0")),
            *(("agency", name) for name in ("delay", "usage", "count", "amount")),
        }
        assert answer["scores"]["fallback"] == pytest.approx(world.scores.loc[ID, "spare"], abs=1e-3)  # rounded points
        alone = served.score("stranger", features(world))
        assert alone["status"] == "fallback" and alone["score"] == answer["scores"]["fallback"]
        assert {reason["party"] for reason in alone["reasons"]} <= {"bank"} and alone["points"] != answer["points"]
        missing = served.score(ID, features(world) | {"income": None})
        assert missing["status"] == "federated" and missing["unseen"] == ["income"]
        assert missing["no_evidence"] == {"bank": 1, "agency": 0}
        (override,) = served.client.get("/v1/model").json()["overrides"]
        assert (override["column"], override["points"]) == ("income", -40.0)
        assert override["reason"] == "seasonal income is understated"


def opened(folder: Path) -> tuple[object, ...]:
    """A token, a key and a certificate for 0.0.0.0, and the options that name the latter two."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fednb")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("0.0.0.0"))])
    made = made.add_extension(where, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    for file, content in (("cert.pem", pem), ("key.pem", secret), ("token", f"{TOKEN}\n".encode())):
        (folder / file).write_bytes(content)
        (folder / file).chmod(0o600)
    return "--certificate", folder / "cert.pem", "--key", folder / "key.pem"


def test_every_answer_is_in_the_log_with_both_scores_and_no_features(
    world: World, regression: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = regression.score(ID, features(world))
    (entry,) = [line for line in regression.log() if line.get("request_id") == answer["request_id"]]
    assert (entry["status"], entry["http"]) == ("federated", 200)
    assert entry["scores"] == answer["scores"] and None not in answer["scores"].values()
    assert entry["serves"] == answer["model"] and entry["falls_back_to"]["kind"] == "OwnLogisticRegression"
    assert ID not in str(entry) and str(features(world)["income"]) not in str(entry)
    file = regression.home / "scores" / "log.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert audit.verify(regression.home / "scores", "bank").problems == []
    assert cli.main(["audit", "verify", str(world.bank), "--scores"]) == 0
    assert "entries" in capsys.readouterr().out
