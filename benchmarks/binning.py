"""Weight of evidence of 30,000 rows and 13 + 10 features, by all three roles, beside phe, in one run.

    python benchmarks/binning.py [--rows 30000] [--bins 20] [--bits 2048] [--threads 1] [--slice 200]

All members run in this process over the loopback network, with the encoding, checking and decoding of every message.
With --threads 1 seconds are those of the processor, for all members together; with more they are the wall's.

phe does it as its users write it: encrypt each label, add up a bin's ciphertexts for each of the passive party's
features, randomise each sum, and decrypt it. Encrypting and adding cost the same for every row, so they are measured
on a slice in the same run and multiplied.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import phe

from fednb.crypto.backend import describe
from fednb.protocols import vertical_binning as protocol
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.wire.link import Link
from fednb.wire.loopback import play

WIDTHS = (13, 10)
CAST = {"active": ("bank",), "passive": ("agency",), "coordinator": ("coordinator",)}
FUNCTIONS = {"bank": protocol.active, "agency": protocol.passive, "coordinator": protocol.coordinator}


def generated(rows: int) -> tuple[dict[str, Dataset], np.ndarray]:
    """Two parties' features, some of few values and some missing, and a label that depends on both."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, sum(WIDTHS)))
    score = X @ rng.normal(size=sum(WIDTHS)) * 0.3 - 1.3
    X[:, ::4] = np.round(2 * X[:, ::4])
    X[:, 1::5][rng.random(X[:, 1::5].shape) < 0.1] = np.nan
    y = (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(float)
    names = tuple(f"x{j}" for j in range(sum(WIDTHS)))
    bank = Dataset(X=X[:, : WIDTHS[0]], columns=names[: WIDTHS[0]], y=y, label="default")
    agency = Dataset(X=X[:, WIDTHS[0] :], columns=names[WIDTHS[0] :])
    return {"bank": bank, "agency": agency, "coordinator": Dataset()}, y


def ours(data: dict[str, Dataset], params: protocol.BinningParams, threads: int) -> tuple[float, dict[str, Outcome]]:
    def role(member: str) -> Callable[[Link], Outcome]:
        return lambda link: FUNCTIONS[member](link, data[member], params, RunContext(threads=threads))

    clock = time.process_time if threads == 1 else time.perf_counter
    began = clock()
    out = play({member: role(member) for member in FUNCTIONS}, CAST, timeout=3600)
    return clock() - began, out


def phes(y: np.ndarray, sums: int, bits: int, rows: int) -> float:
    """Seconds for all labels and `sums` sums of ten features, from a slice of `rows` labels."""
    public, secret = phe.generate_paillier_keypair(n_length=bits)
    began = time.process_time()
    labels = [public.encrypt(int(label)) for label in y[:rows]]
    encrypting = (time.process_time() - began) / rows
    began = time.process_time()
    total = labels[0]
    for label in labels[1:]:
        total = total + label
    adding = (time.process_time() - began) / (rows - 1)
    began = time.process_time()
    total.obfuscate()
    if secret.decrypt(total) != int(y[:rows].sum()):
        raise SystemExit("phe's sum is wrong")
    ending = time.process_time() - began
    return encrypting * len(y) + adding * len(y) * WIDTHS[1] + ending * sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--bins", type=int, default=20)
    parser.add_argument("--bits", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slice", type=int, default=200)
    asked = parser.parse_args()
    data, y = generated(asked.rows)
    params = protocol.BinningParams(bins=asked.bins, key_bits=asked.bits, insecure_short_key=asked.bits < 2048)
    seconds, out = ours(data, params, asked.threads)
    sums = out["coordinator"].public["cells"]["agency"]
    theirs = phes(y, sums, asked.bits, asked.slice)
    print(describe())
    print(f"{asked.rows:,} rows, {WIDTHS[0]} + {WIDTHS[1]} features, {sums} encrypted sums, {asked.bits} bits")
    print(f"fednb   {seconds:8.1f} s, making the key included")
    print(f"phe     {theirs:8.1f} s, from a slice of {asked.slice} rows; {theirs / seconds:.0f} times as long")


if __name__ == "__main__":
    main()
