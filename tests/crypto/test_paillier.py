"""Paillier against phe, against known answers, and by its laws at the edges of the plaintext space."""

from __future__ import annotations

import math
import pickle

import numpy as np
import phe
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto.paillier import CipherVector, Fresh, PrivateKey, PublicKey, generate
from fednb.errors import CryptoError

KEY = generate(256, insecure_short_key=True)
PUBLIC = KEY.public
N = PUBLIC.n

# anywhere in (-n, n), with the edges of the plaintext space likelier than chance would have it
edges = st.sampled_from([0, 1, -1, 2, N // 2 - 1, N // 2, N // 2 + 1, N - 2, N - 1, 1 - N, -(N // 2), -(N // 2) - 1])
plaintexts = st.one_of(edges, st.integers(1 - N, N - 1))


def received(c: Fresh) -> Fresh:
    return Fresh.from_wire(c.to_wire())


def integers(c: CipherVector) -> list[int]:
    return [int.from_bytes(row.tobytes(), "big") for row in c.data]


def from_integers(values: list[int], key: PublicKey, scale: int = 0) -> Fresh:
    raw = b"".join(value.to_bytes(key.width, "big") for value in values)
    return Fresh(np.frombuffer(raw, dtype=np.uint8).reshape(-1, key.width), scale, key.fingerprint)


@given(st.lists(plaintexts, max_size=4))
def test_decryption_undoes_encryption_modulo_n(values: list[int]) -> None:
    assert KEY.decrypt(PUBLIC.encrypt(values)) == [value % N for value in values]
    assert KEY.decrypt(KEY.encrypt(values)) == [value % N for value in values]


@given(plaintexts, plaintexts)
def test_ciphertexts_add_up_modulo_n(a: int, b: int) -> None:
    x = PUBLIC.encrypt([a])
    assert KEY.decrypt(PUBLIC.add(x, PUBLIC.encrypt([b]))) == [(a + b) % N]
    assert KEY.decrypt(PUBLIC.add_plain(x, [b])) == [(a + b) % N]


@given(plaintexts, plaintexts)
def test_a_ciphertext_times_a_number_is_the_product_modulo_n(a: int, b: int) -> None:
    assert KEY.decrypt(PUBLIC.multiply_plain(PUBLIC.encrypt([a]), [b])) == [a * b % N]


@given(plaintexts)
def test_signed_reads_the_upper_half_as_negative(value: int) -> None:
    signed = PUBLIC.signed(value % N)
    assert signed % N == value % N
    assert -N < 2 * signed < N


def test_a_known_ciphertext_decrypts_to_its_known_plaintext() -> None:
    key = PrivateKey(2**64 - 59, 2**64 - 83, insecure_short_key=True)
    n = (2**64 - 59) * (2**64 - 83)
    c = (1 + 123456789 * n) * pow(3, n, n * n) % (n * n)
    assert c == 56983145883473349970737831829187430558478659707511040999798348689092124294050
    assert key.decrypt(key.public.accept(from_integers([c], key.public))) == [123456789]


def test_phe_decrypts_what_we_encrypt(full: PrivateKey) -> None:
    public = phe.PaillierPublicKey(full.public.n)
    private = phe.PaillierPrivateKey(public, int(full._p), int(full._q))
    n = public.n
    values = [0, 1, -1, n // 2, -(n // 2), n - 1, 2**64]
    for vector in (full.public.encrypt(values), full.encrypt(values), full.public.refresh(full.encrypt(values))):
        assert [private.raw_decrypt(c) for c in integers(vector)] == [value % n for value in values]
    moved = full.public.multiply_plain(
        full.public.add_plain(full.encrypt(values), [7] * len(values)), [-3] * len(values)
    )
    assert [private.raw_decrypt(c) for c in integers(moved)] == [(value + 7) * -3 % n for value in values]


def test_we_decrypt_what_phe_encrypts() -> None:
    public, private = phe.generate_paillier_keypair(n_length=2048)
    ours = PrivateKey(private.p, private.q)
    assert ours.public.n == public.n
    values = [0, 1, public.n - 1, public.n // 2, 2**100]
    vector = ours.public.accept(from_integers([public.raw_encrypt(value) for value in values], ours.public))
    assert ours.decrypt(vector) == values
    number = public.encrypt(-12345678901234567890) * 3
    [plain] = ours.decrypt(ours.public.accept(from_integers([number.ciphertext()], ours.public)))
    assert ours.public.signed(plain) == -12345678901234567890 * 3


def test_results_are_the_same_on_two_threads(short: PrivateKey) -> None:
    public, values = short.public, list(range(-40, 61))
    a = public.encrypt(values, threads=2)
    b = public.multiply_plain(public.add(a, a, threads=2), values, threads=2)
    assert short.decrypt(public.refresh(b, threads=2), threads=2) == [2 * v * v for v in values]
    assert (b.data == public.multiply_plain(public.add(a, a), values).data).all()


def test_long_vectors_go_through_in_bounded_chunks(short: PrivateKey) -> None:
    values = list(range(5000))
    vector = short.public.add_plain(short.encrypt(values), values, threads=2)
    assert short.decrypt(vector[4990:]) == [2 * v for v in values[4990:]]


def test_no_randomness_is_used_twice(short: PrivateKey) -> None:
    for encrypt in (short.public.encrypt, short.encrypt):
        assert len(set(integers(encrypt([5] * 500)))) == 500


def test_refreshing_keeps_plaintexts_and_changes_every_ciphertext(short: PrivateKey) -> None:
    c = short.public.encrypt([1, 2, 3])
    for refreshed in (short.public.refresh(c), short.refresh(c)):
        assert short.decrypt(refreshed) == [1, 2, 3]
        assert not set(integers(refreshed)) & set(integers(c))


def test_randomness_is_an_nth_residue(short: PrivateKey) -> None:
    # the order of an n-th residue modulo n² divides (p-1)(q-1); that of n+1 is n, which does not
    p, q, n = int(short._p), int(short._q), short.public.n
    for encrypt in (short.public.encrypt, short.encrypt):
        for c in integers(encrypt([0] * 20)):
            assert pow(c, (p - 1) * (q - 1), n * n) == 1
            assert c != 1


def test_each_party_has_a_base_of_its_own(short: PrivateKey) -> None:
    a, b = (PublicKey(short.public.n, insecure_short_key=True) for _ in range(2))
    a.encrypt([0]), b.encrypt([0])
    bases = [key.ring.store(key._noise._powers._base).tobytes() for key in (a, b)]  # type: ignore[union-attr]
    assert bases[0] != bases[1]


def test_only_fresh_vectors_travel(short: PrivateKey) -> None:
    public = short.public
    fresh = public.encrypt([1, 2])
    computed = [
        public.add(fresh, fresh),
        public.add_plain(fresh, [1, 1]),
        public.multiply_plain(fresh, [2, 2]),
        public.concatenate([fresh, fresh]),
        public.accept(received(fresh)),
    ]
    for vector in computed:
        assert type(vector) is CipherVector
        assert not hasattr(vector, "to_wire")
        assert hasattr(public.refresh(vector), "to_wire")


def test_a_part_of_a_fresh_vector_is_fresh_and_of_a_computed_one_is_not(short: PrivateKey) -> None:
    fresh = short.public.encrypt([4, 5, 6])
    assert type(fresh[1:]) is Fresh
    assert short.decrypt(fresh[np.array([2, 0])]) == [6, 4]
    assert type(short.public.add(fresh, fresh)[1:]) is CipherVector


def test_a_received_vector_is_good_for_nothing_before_it_is_accepted(short: PrivateKey) -> None:
    got = received(short.public.encrypt([1]))
    for use in (
        got.to_wire,
        lambda: short.decrypt(got),
        lambda: short.public.refresh(got),
        lambda: short.public.add(got, got),
    ):
        with pytest.raises(CryptoError, match="accept"):
            use()


def test_vectors_keep_their_scale_on_the_wire(short: PrivateKey) -> None:
    vector = short.public.accept(received(short.public.encrypt([3, 4], scale=20)), count=2, scale=20)
    assert vector.scale == 20
    assert short.public.multiply_plain(vector, [1, 1], scale=12).scale == 32
    assert short.decrypt(vector) == [3, 4]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        ["key", 0],
        [1, 0, np.zeros((1, 128), np.uint8)],
        ["key", "0", np.zeros((1, 128), np.uint8)],
        ["key", True, np.zeros((1, 128), np.uint8)],
        ["key", 1 << 40, np.zeros((1, 128), np.uint8)],
        ["key", 0, b"bytes"],
        ["key", 0, np.zeros((1, 128), np.int8)],
        ["key", 0, np.zeros(128, np.uint8)],
    ],
)
def test_malformed_vectors_do_not_decode(parts: list[object]) -> None:
    with pytest.raises(ValueError):
        Fresh.from_wire(parts)


def test_a_peers_vector_is_refused_when_it_is_not_what_was_expected(short: PrivateKey) -> None:
    public = short.public
    good = public.encrypt([1, 2, 3], scale=5)
    other = generate(512, insecure_short_key=True)
    n = public.n
    p = int(short._p)
    refused = {
        "are of the key": (received(other.public.encrypt([1, 2, 3], scale=5)), {}),
        "have 128 bytes": (Fresh(good.data[:, :-1], 5, public.fingerprint), {}),
        "4 ciphertexts were expected and 3 came": (received(good), {"count": 4}),
        "scale": (received(good), {"scale": 6}),
        "out of range": (from_integers([1, n * n], public), {}),
        "not coprime": (from_integers([1, 0], public), {}),
        "not coprime to n": (from_integers([1, n], public), {}),
        "is not coprime": (from_integers([p], public), {}),
        "not coprime ": (from_integers([p * 12345, 7], public), {}),
    }
    for message, (vector, expected) in refused.items():
        with pytest.raises(CryptoError, match=message):
            public.accept(vector, **expected)
    assert len(public.accept(received(good), count=3, scale=5, threads=2)) == 3
    public.accept(from_integers([n * n - 1, 1], public))


def test_every_byte_counts_for_whether_a_ciphertext_is_in_range(short: PrivateKey) -> None:
    public, most = short.public, short.public.n**2 - 1
    raw = np.frombuffer(most.to_bytes(public.width, "big"), dtype=np.uint8)
    for place, byte in enumerate(raw.tolist()):
        above, below = raw.copy(), raw.copy()
        above[place:], below[place + 1 :] = 0, 255  # what follows must not count, a byte of zero must not end it
        above[place], below[place] = min(byte + 1, 255), max(byte - 1, 0)
        for changed in (above, below):
            number = int.from_bytes(changed.tobytes(), "big")
            vector = received(Fresh(np.stack([raw, changed]), 0, public))
            if number > most:
                with pytest.raises(CryptoError, match="out of range"):
                    public.accept(vector)
            elif math.gcd(number, public.n) == 1:
                public.accept(vector)


def test_ciphertexts_of_another_key_are_refused_everywhere(short: PrivateKey) -> None:
    other = generate(512, insecure_short_key=True)
    mine, theirs = short.public.encrypt([1]), other.public.encrypt([1])
    for use in (
        lambda: short.public.add(mine, theirs),
        lambda: short.public.add(theirs, mine),
        lambda: short.public.add_plain(theirs, [1]),
        lambda: short.public.multiply_plain(theirs, [1]),
        lambda: short.public.refresh(theirs),
        lambda: short.refresh(theirs),
        lambda: short.public.concatenate([mine, theirs]),
        lambda: short.decrypt(theirs),
    ):
        with pytest.raises(CryptoError, match="are of <PublicKey"):
            use()


def test_lengths_and_scales_must_match(short: PrivateKey) -> None:
    public = short.public
    one, two = public.encrypt([1]), public.encrypt([1, 2])
    for use in (
        lambda: public.add(one, two),
        lambda: public.add_plain(one, [1, 2]),
        lambda: public.multiply_plain(two, [1]),
    ):
        with pytest.raises(CryptoError, match="1 and of 2|2 and of 1"):
            use()
    with pytest.raises(CryptoError, match="one scale"):
        public.add(one, public.encrypt([1], scale=3))
    with pytest.raises(CryptoError, match="one scale"):
        public.concatenate([one, public.encrypt([1], scale=3)])
    with pytest.raises(CryptoError, match="scale"):
        public.multiply_plain(one, [1], scale=5000)


@pytest.mark.parametrize("value", [N, -N, N + 1, 10 * N], ids=["n", "-n", "n + 1", "10 n"])
def test_plaintexts_beyond_n_are_refused_without_naming_them(value: int) -> None:
    for use in (
        lambda: PUBLIC.encrypt([0, value]),
        lambda: PUBLIC.add_plain(PUBLIC.encrypt([0]), [value]),
        lambda: PUBLIC.multiply_plain(PUBLIC.encrypt([0]), [value]),
    ):
        with pytest.raises(CryptoError) as caught:
            use()
        assert str(abs(value)) not in str(caught.value)


def test_short_keys_are_refused_unless_asked_for_by_their_ugly_name(short: PrivateKey) -> None:
    for make in (
        lambda: generate(1024),
        lambda: generate(2032),
        lambda: PublicKey(short.public.n),
        lambda: PublicKey.from_bytes(short.public.to_bytes()),
        lambda: PrivateKey(int(short._p), int(short._q)),
    ):
        with pytest.raises(CryptoError, match="too short: at least 2048"):
            make()


@pytest.mark.parametrize(
    "n",
    [0, 1, 2**2047, 2**2048 - 1942289, (2**1024 - 1) ** 2, 2**2051 + 1, 2**8207 + 1],
    ids=["zero", "one", "even", "prime", "square", "odd length", "too long"],
)
def test_numbers_that_cannot_be_a_key_are_refused(n: int) -> None:
    with pytest.raises(CryptoError):
        PublicKey(n)
    with pytest.raises(CryptoError):
        PublicKey.from_bytes(n.to_bytes(-(-n.bit_length() // 8) or 1, "big"))


def test_primes_that_make_no_key_are_refused() -> None:
    for p, q in ((2**127 - 1, 2**127 - 1), (2**127 - 1, 2**128 - 1), (2**127, 2**129)):
        with pytest.raises(CryptoError):
            PrivateKey(p, q, insecure_short_key=True)


def test_generated_primes_are_what_the_assumption_asks_for(full: PrivateKey) -> None:
    p, q = int(full._p), int(full._q)
    assert full.public.bits == 2048
    assert p.bit_length() == q.bit_length() == 1024
    assert p % 4 == q % 4 == 3
    for key in [full, *(generate(128, insecure_short_key=True) for _ in range(30))]:
        assert math.gcd(int(key._p) - 1, int(key._q) - 1) == 2


def test_a_public_key_survives_its_bytes(full: PrivateKey) -> None:
    again = PublicKey.from_bytes(full.public.to_bytes())
    assert again == full.public
    assert hash(again) == hash(full.public)
    assert again.fingerprint == full.public.fingerprint
    assert full.decrypt(full.public.add(again.encrypt([3]), full.public.encrypt([4]))) == [7]


def test_secrets_appear_in_no_repr_and_no_pickle(short: PrivateKey) -> None:
    text = f"{short!r} {short} {short.public!r} {short.public.encrypt([42])!r}"
    for secret in (int(short._p), int(short._q)):
        assert str(secret) not in text
        assert f"{secret:x}" not in text
    with pytest.raises(TypeError):
        pickle.dumps(short)


def test_an_empty_vector_is_a_vector(short: PrivateKey) -> None:
    public = short.public
    nothing = public.encrypt([])
    assert len(public.accept(received(public.refresh(public.add(nothing, nothing))), count=0)) == 0
    assert short.decrypt(nothing) == []


def test_a_table_grows_with_use_and_stays_right(short: PrivateKey) -> None:
    public = PublicKey(short.public.n, insecure_short_key=True)
    for count in (1, 2, 300, 2, 2000):
        assert short.decrypt(public.encrypt([7] * count)[-2:]) == [7, 7][:count]
