"""Training by its real roles: the model, what crossed, and what happens when somebody misbehaves or fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

from fednb.crypto import paillier
from fednb.crypto.paillier import CipherVector, Fresh
from fednb.errors import CryptoError, DataError, QuotaExceeded, UnexpectedMessage
from fednb.protocols import four_steps as fs
from fednb.protocols import rows
from fednb.protocols.base import FixedBudget, Journal, Outcome, RunContext
from fednb.protocols.features import Scaling
from fednb.protocols.layout import Layout
from fednb.protocols.steps import Block
from fednb.wire.codec import encode
from fednb.wire.message import Message

DATA = Path(__file__).parents[3] / "shared" / "data"

Make = Callable[..., Any]


def standardised(parts: list[np.ndarray], clip: float = 4.0) -> np.ndarray:
    X = np.hstack(parts)
    return np.clip((X - X.mean(axis=0)) / X.std(axis=0), -clip, clip)


def coefficients(training: Any, out: Mapping[str, Outcome]) -> np.ndarray:
    return np.concatenate([out[member].private["coef"] for member in training.parties])


def linear(training: Any, out: Mapping[str, Outcome], parts: list[np.ndarray] | None = None) -> np.ndarray:
    total = out["bank"].private["intercept"]
    for member, X in zip(training.parties, parts or training.parts, strict=True):
        total = total + Scaling.from_part(out[member].private).apply(X) @ out[member].private["coef"]
    return np.asarray(total)


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize(("widths", "n", "allowed"), [((2, 3), 400, 0.03), ((1, 1, 2), 200, 0.08)])
def test_coefficients_are_scikit_learns(training: Make, widths: tuple[int, ...], n: int, allowed: float) -> None:
    t = training(widths, n=n, max_iter=30, tol=1e-4)
    out = t.fit()
    reference = LogisticRegression(C=1.0, tol=1e-8).fit(standardised(t.parts), t.y)
    assert np.abs(coefficients(t, out) - reference.coef_[0]).max() < allowed
    scores = reference.decision_function(standardised(t.parts))
    assert abs(roc_auc_score(t.y, linear(t, out)) - roc_auc_score(t.y, scores)) < 0.002
    assert np.abs(linear(t, out) - scores).max() < 0.25


def test_the_penalty_is_scikit_learns(training: Make) -> None:
    t = training(n=200, C=0.02, max_iter=20, tol=1e-4)
    reference = LogisticRegression(C=0.02, tol=1e-8).fit(standardised(t.parts), t.y)
    assert np.abs(coefficients(t, t.fit()) - reference.coef_[0]).max() < 0.01


def test_features_need_not_be_standardised(training: Make) -> None:
    t = training(n=200, standardize=False, clip=None, max_iter=20, tol=1e-5)
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(np.hstack(t.parts), t.y)
    scores = reference.decision_function(np.hstack(t.parts))
    assert np.corrcoef(linear(t, t.fit()), scores)[0, 1] > 0.999


def test_secrets_do_not_change_the_result(training: Make) -> None:
    t = training((1, 1, 1), n=120, max_iter=4)
    first, second = t.fit(), t.fit()
    assert coefficients(t, first).tobytes() == coefficients(t, second).tobytes()
    assert first["bank"].private["intercept"] == second["bank"].private["intercept"]


def test_training_stops_when_the_gradient_is_small(training: Make) -> None:
    out = training(n=200, tol=0.02, max_iter=30).fit()
    history = out["bank"].public["history"]["gradient_norm"]
    assert out["bank"].public["converged"] and out["coordinator"].public["converged"]
    assert len(history) == out["bank"].public["n_iter"] == out["agency"].public["n_iter"] < 30
    assert history[-1] <= 0.02


def test_a_model_that_is_not_done_says_so(training: Make) -> None:
    out = training(n=200, tol=1e-9, max_iter=2).fit()
    assert not out["bank"].public["converged"]
    assert "max_iter=2" in out["bank"].public["notes"][0]


def test_nearly_separable_classes_train_and_are_pointed_out(training_on: Make) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0.0, 1.0], 100)
    X = [np.column_stack([50 * y + rng.normal(size=200)]), rng.normal(size=(200, 1)) + y[:, None]]
    t = training_on(X, y, C=1e5, max_iter=25, tol=1e-4, sigmoid="coarse")
    out = t.fit()
    assert roc_auc_score(y, linear(t, out)) == 1.0
    assert np.isfinite(coefficients(t, out)).all()
    assert any("nearly separate the classes" in note for note in out["bank"].public["notes"])


def test_long_tails_do_not_make_training_diverge(training: Make) -> None:
    t = training(n=300, clip=None, max_iter=15)
    t.parts[1][:5] *= 200.0
    out = t.fit()
    assert np.isfinite(coefficients(t, out)).all()
    assert out["bank"].public["history"]["gradient_norm"][-1] < out["bank"].public["history"]["gradient_norm"][0]


def test_a_passive_party_keeps_its_coefficients_to_itself(training: Make) -> None:
    t = training(max_iter=2)
    out = t.fit()
    assert set(out["agency"].public) == {"n_iter", "features"}
    assert set(out["coordinator"].public) == {"rows", "n_iter", "converged", "parties"}
    assert out["bank"].public["coef"] == out["bank"].private["coef"].tolist()


# ---------------------------------------------------------------- what crosses


def test_messages_go_where_the_picture_says(training: Make) -> None:
    t = training((2, 2, 2), n=150, max_iter=3)
    t.fit()
    tape = t.tape
    assert tape.kinds("bank", "agency") == ["Residuals"] * 3 == tape.kinds("bank", "telco")
    assert tape.kinds("agency", "bank") == ["Scores"] * 3 == tape.kinds("telco", "bank")
    assert tape.kinds("agency", "telco") == [] == tape.kinds("telco", "agency")
    for member in t.parties:
        assert tape.kinds(member, "coordinator") == ["Shape", *["MaskedGradient", "Norm"] * 3]
        assert tape.kinds("coordinator", member) == ["Key", "Ready", *["Windows", "Next"] * 3]


def test_passive_parties_never_see_labels_or_scores_in_the_clear(training: Make) -> None:
    t = training((2, 2, 2), n=150, max_iter=3)
    t.fit()
    to_passives = [m for _, receiver, m in t.tape.messages if receiver in t.cast["passive"]]
    for message in to_passives:
        assert isinstance(message, fs.Key | fs.Ready | fs.Residuals | fs.Windows | fs.Next)
    assert all(m.windows.shape == (2,) for m in to_passives if isinstance(m, fs.Windows))
    to_active = [m for sender, receiver, m in t.tape.messages if receiver == "bank" and sender != "coordinator"]
    assert {type(m) for m in to_active} == {fs.Scores}


def test_no_ciphertext_is_passed_on_as_it_came(training: Make) -> None:
    t = training((2, 2, 2), n=150, max_iter=2)
    t.fit()
    seen: dict[bytes, str] = {}
    vectors = 0
    for sender, _, message in t.tape.messages:
        for name in message.__struct_fields__:
            value = getattr(message, name)
            if isinstance(value, CipherVector):
                vectors += 1
                for ciphertext in value.data:
                    assert ciphertext.tobytes() not in seen, f"{sender} sent what {seen[ciphertext.tobytes()]} sent"
                    seen[ciphertext.tobytes()] = sender
    assert vectors == 2 * (2 + 2 + 3)  # iterations x (scores, residuals, gradients)


def test_every_ciphertext_sent_carries_randomness_of_its_sender(
    training: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: set[bytes] = set()

    def noted(original: Callable[..., Fresh]) -> Callable[..., Fresh]:
        def call(*args: Any) -> Fresh:
            c = original(*args)
            made.update(row.tobytes() for row in c.data)
            return c

        return call

    monkeypatch.setattr(paillier.PublicKey, "encrypt", noted(paillier.PublicKey.encrypt))
    monkeypatch.setattr(paillier.PublicKey, "refresh", noted(paillier.PublicKey.refresh))
    t = training((1, 1, 1), n=60, max_iter=1)
    t.fit()
    sent = [getattr(m, name) for _, _, m in t.tape.messages for name in m.__struct_fields__]
    rows = [row.tobytes() for c in sent if isinstance(c, CipherVector) for row in c.data]
    assert rows and all(row in made for row in rows)


def test_momentum_is_forgotten_when_the_stage_changes(training: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(Block, "restart", lambda self: calls.append(1))
    training(n=60, max_iter=4).fit()
    assert len(calls) == 2 * 2  # both parties: coarse to fine, fine to the end


def test_a_sum_that_was_not_refreshed_cannot_travel() -> None:
    key = paillier.generate(512, insecure_short_key=True).public
    total = key.add(key.encrypt([1]), key.encrypt([2]))
    with pytest.raises(TypeError):
        encode(fs.Residuals(terms=total))  # type: ignore[arg-type]
    encode(fs.Residuals(terms=key.refresh(total)))


def test_the_coordinator_decrypts_uniform_numbers(training: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    decrypt = paillier.PrivateKey.decrypt

    def spy(self: paillier.PrivateKey, c: CipherVector, threads: int = 1) -> list[int]:
        plain = decrypt(self, c, threads)
        seen.extend(x / self.public.n for x in plain)
        return plain

    monkeypatch.setattr(paillier.PrivateKey, "decrypt", spy)
    training((3, 3), n=100, max_iter=8, sigmoid="coarse", tol=0.0).fit()
    assert len(seen) == 8 * 7
    # an unmasked gradient would be tiny, or just below n
    assert 0.3 < np.mean(seen) < 0.7 and np.std(seen) > 0.2
    assert np.mean([1e-6 < x < 1 - 1e-6 for x in seen]) == 1.0


# ---------------------------------------------------------------- misbehaviour


def test_a_dishonest_party_reads_no_more_than_the_window_of_one_slot(training: Make) -> None:
    """The coordinator as an oracle: residual ciphertexts handed in as if they were a gradient."""
    t = training((1, 3), n=100, max_iter=50, sigmoid="coarse", tol=0.0)
    got: list[fs.Windows] = []

    class Careless(FixedBudget):
        def expect(self, member: str, slots: int) -> None:
            if slots <= 3:  # not before the work: what counts is that each decryption is counted
                super().expect(member, slots)

    budget = Careless(20)

    def thief(link: Any) -> Outcome:
        key = paillier.PublicKey.from_bytes(link.recv("coordinator", fs.Key).n, insecure_short_key=True)
        link.send("coordinator", fs.Shape(rows=100, features=3, resumed=0))
        link.recv("coordinator", fs.Ready)
        layout = Layout.of("coarse", key, 100, 1)
        plain = layout.pack_scores(np.zeros((100, 2)))
        while True:
            link.send("bank", fs.Scores(key.encrypt(plain, layout.score_scale)))
            residuals = key.accept(link.recv("bank", fs.Residuals).terms)
            link.send("coordinator", fs.MaskedGradient(key.refresh(residuals[:3])))
            got.append(link.recv("coordinator", fs.Windows))
            link.send("coordinator", fs.Norm(0.1))
            link.recv("coordinator", fs.Next)

    t.replace = {"agency": thief}
    t.contexts = {"coordinator": RunContext(budget=budget)}
    with pytest.raises(QuotaExceeded, match="decrypted 18 of at most 20 slots for agency"):
        t.fit()
    assert budget.spent["agency"] == 18 and sum(w.windows.size for w in got) == 18
    packing = Layout.of("coarse", paillier.generate(512, insecure_short_key=True).public, 100, 1).packing
    assert packing.slots > 1
    assert all(int(w.windows.max()) < 1 << packing.slot_bits for w in got)  # one slot of k, nothing of the others


def test_a_quota_that_cannot_suffice_fails_before_anything_is_decrypted(training: Make) -> None:
    t = training((2, 3), n=60, max_iter=7)
    budget = FixedBudget(20)
    t.contexts = {"coordinator": RunContext(budget=budget)}
    with pytest.raises(QuotaExceeded, match="decrypted 0 of at most 20 slots for bank and was asked for 21 more"):
        t.fit()
    assert not budget.spent and not t.tape.kinds("agency", "bank")
    t.params["max_iter"] = 6
    t.fit()
    assert budget.spent == {"bank": 18, "agency": 18}


def test_more_ciphertexts_than_features_are_not_decrypted(training: Make) -> None:
    def greedy(to: str, message: Message) -> Message:
        if isinstance(message, fs.MaskedGradient):
            data = np.concatenate([message.gradient.data, message.gradient.data])
            return fs.MaskedGradient(Fresh(data, message.gradient.scale, message.gradient.key))
        return message

    t = training(n=60, max_iter=2)
    t.alter = {"agency": greedy}
    budget = FixedBudget(1000)
    t.contexts = {"coordinator": RunContext(budget=budget)}
    with pytest.raises(UnexpectedMessage, match="agency sent a gradient.*3 ciphertexts were expected and 6 came"):
        t.fit()
    assert "agency" not in budget.spent


def shorter(c: Fresh) -> Fresh:
    return c[:-1]


def foreign(c: Fresh) -> Fresh:
    other = paillier.generate(512, insecure_short_key=True).public
    return other.encrypt([0] * len(c), c.scale)


def rescaled(c: Fresh) -> Fresh:
    return Fresh(c.data, c.scale + 1, c.key)


def zeros(c: Fresh) -> Fresh:
    return Fresh(np.zeros_like(c.data), c.scale, c.key)


@pytest.mark.parametrize("spoil", [shorter, foreign, rescaled, zeros])
@pytest.mark.parametrize(
    ("who", "kind", "reader"), [("agency", fs.Scores, "scores"), ("bank", fs.Residuals, "residuals")]
)
def test_poisoned_ciphertexts_are_refused_naming_their_sender(
    training: Make, spoil: Callable[[Fresh], Fresh], who: str, kind: type[Message], reader: str
) -> None:
    def alter(to: str, message: Message) -> Message:
        return type(message)(spoil(message.terms)) if isinstance(message, kind) else message

    t = training(n=60, max_iter=2)
    t.alter = {who: alter}
    with pytest.raises(UnexpectedMessage, match=f"{who} sent ciphertexts that cannot be used") as caught:
        t.fit()
    assert caught.value.member == who


@pytest.mark.parametrize(
    ("who", "instead", "error", "message"),
    [
        ("agency", fs.Shape(rows=59, features=3, resumed=0), DataError, r"same rows \(bank 60, agency 59\)"),
        ("agency", fs.Shape(rows=60, features=-1, resumed=0), UnexpectedMessage, "agency announced -1 features"),
        ("agency", fs.Shape(rows=60, features=58, resumed=0), DataError, "61 features and 60 rows"),
        ("agency", fs.Shape(rows=60, features=3, resumed=7), DataError, "agency would continue after iteration 7"),
        ("agency", fs.Norm(-1.0), UnexpectedMessage, "agency sent a negative norm"),
        ("agency", fs.Norm(float("nan")), DataError, "training diverges: at iteration 1"),
        ("coordinator", fs.Windows(np.zeros(5, np.uint64)), UnexpectedMessage, "coordinator sent"),
        ("coordinator", fs.Windows(np.zeros(3, np.int32)), UnexpectedMessage, "coordinator sent"),
        ("coordinator", fs.Key(n=b"\x07" * 64), UnexpectedMessage, "coordinator sent a key that cannot be used"),
        ("agency", fs.Ready(), UnexpectedMessage, "agency"),
    ],
)
def test_a_message_that_does_not_fit_is_refused_naming_its_sender(
    training: Make, who: str, instead: Message, error: type[Exception], message: str
) -> None:
    def alter(to: str, sent: Message) -> Message:
        if isinstance(instead, fs.Ready):
            return instead if isinstance(sent, fs.Scores) else sent
        return instead if type(sent) is type(instead) else sent

    t = training(n=60, max_iter=2)
    t.alter = {who: alter}
    with pytest.raises(error, match=message):
        t.fit()


def test_a_key_shorter_than_agreed_is_refused(training: Make) -> None:
    t = training(n=60)
    t.alter = {
        "coordinator": lambda to, m: (
            fs.Key(paillier.generate(256, insecure_short_key=True).public.to_bytes()) if isinstance(m, fs.Key) else m
        )
    }
    with pytest.raises(UnexpectedMessage, match="key of 256 bits, not of 512"):
        t.fit()


def test_short_keys_need_the_flag_that_says_they_are_insecure(training: Make) -> None:
    with pytest.raises(CryptoError, match="too short"):
        training(n=60, insecure_short_key=False).fit()


# ---------------------------------------------------------------- bad data


def label(**changes: Any) -> Callable[[Any], None]:
    def change(t: Any) -> None:
        for index, value in changes.items():
            t.y[slice(None) if index == "all" else int(index[1:])] = value

    return change


def column(member: int, j: int, values: Any) -> Callable[[Any], None]:
    def change(t: Any) -> None:
        t.parts[member][:, j] = values

    return change


def cell(member: int, i: int, j: int, value: float) -> Callable[[Any], None]:
    def change(t: Any) -> None:
        t.parts[member][i, j] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (label(i3=2.0), "bank's label 'default' is not binary: 1 of 60 rows"),
        (label(i3=np.nan), "bank's label 'default' is missing in 1 rows"),
        (label(all=1.0), "bank's label 'default' has one class only"),
        (cell(1, 5, 2, np.nan), r"agency has missing values in 'agency_2' \(1 rows\). Impute them in a %%party cell"),
        (cell(0, 5, 1, np.inf), "bank has infinite values in 'bank_1'"),
        (column(1, 1, 4.25), "agency has the same value in all training rows of 'agency_1'"),
        (column(1, 1, np.arange(60) < 4), "agency's column 'agency_1' has two values and one of them stands in 4"),
    ],
)
def test_data_that_cannot_be_trained_on_is_explained(
    training: Make, spoil: Callable[[Any], None], message: str
) -> None:
    t = training(n=60)
    spoil(t)
    with pytest.raises(DataError, match=message):
        t.fit()


def test_an_error_names_no_value(training: Make) -> None:
    t = training(n=60)
    t.y[:] = np.where(t.y == 1, 4711.0, 0.0)
    with pytest.raises(DataError) as caught:
        t.fit()
    assert "4711" not in str(caught.value)


def test_more_features_than_rows_are_refused(training: Make) -> None:
    with pytest.raises(DataError, match="agency has 40 features for 30 rows.*more rows than features"):
        training((2, 40), n=30).fit()
    with pytest.raises(DataError, match="51 features and 40 rows"):
        training((25, 25), n=40).fit()


def test_a_passive_party_without_features_is_pointed_out(training: Make) -> None:
    with pytest.raises(DataError, match="agency has no features"):
        training((2, 0), n=60).fit()


def test_an_active_party_may_bring_only_the_label(training: Make) -> None:
    t = training((0, 3), n=200, max_iter=15)
    reference = LogisticRegression(tol=1e-8).fit(standardised(t.parts), t.y)
    assert np.abs(coefficients(t, t.fit()) - reference.coef_[0]).max() < 0.05


# ---------------------------------------------------------------- crash and resume


class Pages(Journal):
    """Keeps every boundary, and continues from the one it is told."""

    def __init__(self) -> None:
        self.pages: dict[int, Mapping[str, Any]] = {}
        self.resume: int | None = None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        self.pages[step] = state

    def load(self) -> tuple[int, Mapping[str, Any]] | None:
        return None if self.resume is None else (self.resume, self.pages[self.resume])


@pytest.mark.parametrize(
    ("widths", "crash_at", "batch_size"), [((2, 2), 5, None), ((1, 2, 2), 3, None), ((2, 2), 8, None), ((2, 2), 6, 100)]
)
def test_a_run_continues_after_a_crash_to_the_same_model(
    training: Make, widths: tuple[int, ...], crash_at: int, batch_size: int | None
) -> None:
    t = training(widths, n=120 if batch_size is None else 330, max_iter=8, tol=0.0, batch_size=batch_size)
    t.contexts = {member: RunContext() for member in [*t.parties, "coordinator"]}
    whole = t.fit()
    journals = {member: Pages() for member in [*t.parties, "coordinator"]}

    class Killed(Exception):
        pass

    def crash(phase: str, step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if phase == "train" and step == crash_at:
            raise Killed

    t.contexts = {
        member: RunContext(journal=journal, emit=crash if member == "agency" else None)
        for member, journal in journals.items()
    }
    with pytest.raises(Killed):
        t.fit()
    common = min(max(journal.pages) for journal in journals.values())
    assert common >= crash_at - 1
    for journal in journals.values():
        journal.resume = common
    t.contexts = {member: RunContext(journal=journal) for member, journal in journals.items()}
    again = t.fit()
    assert coefficients(t, again).tobytes() == coefficients(t, whole).tobytes()
    assert again["bank"].public == whole["bank"].public


def test_progress_and_operations_are_reported(training: Make) -> None:
    events: list[tuple[str, str, int, int | None, dict[str, float]]] = []
    t = training(n=60, max_iter=2)
    t.contexts = {
        member: RunContext(emit=lambda *event, m=member: events.append((m, *event)))
        for member in [*t.parties, "coordinator"]
    }
    t.fit()
    trained = [event for event in events if event[1] == "train"]
    assert {(member, step, total) for member, _, step, total, _ in trained} == {
        (member, step, 2) for member in ("bank", "agency", "coordinator") for step in (1, 2)
    }
    assert all(m["gradient_norm"] > 0 for member, _, _, _, m in trained if member == "coordinator")
    assert t.contexts["agency"].operations["encrypt"] > 0 and t.contexts["coordinator"].operations["decrypt"] == 12


# ---------------------------------------------------------------- real data


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the public benchmark data is not here")
def test_default_credit_matches_scikit_learn_in_twenty_iterations(training_on: Make) -> None:
    guest = np.genfromtxt(DATA / "default_credit_hetero_guest.csv", delimiter=",", skip_header=1)
    host = np.genfromtxt(DATA / "default_credit_hetero_host.csv", delimiter=",", skip_header=1)
    some = np.random.default_rng(1).permutation(len(guest))[:12_000]
    train, test = some[:3000], some[3000:]
    parts = [guest[:, 2:], host[:, 1:]]
    t = training_on([X[train] for X in parts], guest[train, 1], max_iter=20)
    out = t.fit()
    scores = linear(t, out, [X[test] for X in parts])
    X = np.hstack(parts)
    Z = np.clip((X - X[train].mean(axis=0)) / X[train].std(axis=0), -4, 4)
    reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(Z[train], guest[train, 1])
    expected, y = reference.decision_function(Z[test]), guest[test, 1]
    assert abs(roc_auc_score(y, scores) - roc_auc_score(y, expected)) <= 0.001
    assert abs(ks(y, scores) - ks(y, expected)) <= 0.005
    assert out["bank"].public["n_iter"] <= 20


def ks(y: np.ndarray, scores: np.ndarray) -> float:
    fpr, tpr, _ = roc_curve(y, scores)
    return float(np.max(tpr - fpr))


# ---------------------------------------------------------------- in parts


class InParts:
    """Features that can be read some rows, or one column, at a time only, as from a file."""

    def __init__(self, X: np.ndarray) -> None:
        self._X, self.shape, self.most = X, X.shape, 0

    def __getitem__(self, which: Any) -> np.ndarray:
        if isinstance(which, slice):
            self.most = max(self.most, which.stop - which.start)
        else:
            assert which[0] == slice(None) and isinstance(which[1], int)
        return np.array(self._X[which])


@pytest.mark.parametrize("widths", [(2, 3), (0, 2, 2)])
def test_rows_in_parts_give_the_same_model_and_are_revealed_once(
    training: Make, widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    t = training(widths, n=310, max_iter=8)
    whole = t.fit()
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 100)
    t.tape.messages.clear()
    t.parts = [InParts(X) for X in t.parts]
    parts = t.fit()
    assert all(X.most == 78 for X in t.parts)
    # plaintext factors are rounded in the same way, and sums of integers are exact
    np.testing.assert_allclose(coefficients(t, parts), coefficients(t, whole), atol=1e-9, rtol=0)
    n_iter = parts["bank"].public["n_iter"]
    assert n_iter == whole["bank"].public["n_iter"]
    for passive in t.cast["passive"]:
        assert t.tape.kinds(passive, "bank") == ["Scores"] * 4 * n_iter
        assert t.tape.kinds("bank", passive) == ["Residuals"] * 4 * n_iter
        assert t.tape.kinds(passive, "coordinator").count("MaskedGradient") == n_iter


def test_both_sides_have_a_part_to_work_on(training: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "EACH_WAY", 60)
    t = training((2, 3), n=310, max_iter=1)
    t.fit()
    assert t.tape.kinds("agency", "bank") == ["Scores"] * rows.PARTS
    said = [type(m).__name__ for s, r, m in t.tape.messages if {s, r} == {"bank", "agency"}]
    assert said.index("Residuals") < len(said) - said[::-1].index("Scores") - 1, "an answer before the last question"


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("widths", [(2, 3), (1, 2, 2)])
def test_batches_come_near_the_model_of_all_rows(training: Make, widths: tuple[int, ...]) -> None:
    t = training(widths, n=3000, max_iter=24, batch_size=500)
    # rows stand in the order of the label: batches must not
    order = np.argsort(t.y, kind="stable")
    t.parts, t.y = [X[order] for X in t.parts], t.y[order]
    out = t.fit()
    reference = LogisticRegression(C=1.0, tol=1e-8).fit(standardised(t.parts), t.y)
    scores = reference.decision_function(standardised(t.parts))
    assert abs(roc_auc_score(t.y, linear(t, out)) - roc_auc_score(t.y, scores)) < 0.002
    assert np.abs(coefficients(t, out) - reference.coef_[0]).max() < 0.12
    sent = [len(m.terms) for s, r, m in t.tape.messages if isinstance(m, fs.Residuals) and r == "agency"]
    assert len(sent) == 24
    t.params["batch_size"] = None
    t.tape.messages.clear()
    t.fit()
    all_rows = [len(m.terms) for s, r, m in t.tape.messages if isinstance(m, fs.Residuals) and r == "agency"]
    assert all_rows[0] > 4 * sent[0]


def test_batches_with_l1_keep_exact_zeros(training: Make) -> None:
    t = training(n=600, max_iter=12, batch_size=200, C=0.02, l1_ratio=1.0)
    assert np.any(coefficients(t, t.fit()) == 0.0)


def test_a_batch_with_fewer_rows_than_features_is_refused(training: Make) -> None:
    t = training((60, 50), n=1000, batch_size=100)
    with pytest.raises(DataError, match="112 features and 100 rows in an iteration|111 features and 100 rows"):
        t.fit()
