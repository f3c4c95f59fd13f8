"""Xᵀ[[d]]: inner products of plaintext columns with an encrypted vector."""

from __future__ import annotations

import gmpy2
import numpy as np
import numpy.typing as npt
from gmpy2 import mpz

from fednb.crypto.backend import to_ints, to_residues
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector
from fednb.errors import CryptoError


def inner_products(
    c: CipherVector, columns: npt.NDArray[np.int64], packing: Packing, scale: int = 0, threads: int = 1
) -> CipherVector:
    """For each column x of `columns` [n, d], integers scaled by 2**scale: [[Σ d·x]] in slot k-1; [d].

    `c` holds ceil(n/k) ciphertexts of k packed numbers each. The other slots hold cross terms: mask the whole
    plaintext before it is decrypted.
    """
    packing.check_columns(columns)
    n, k = len(columns), packing.slots
    if len(c) != packing.length(n):
        raise CryptoError(f"{n} rows are {packing.length(n)} ciphertexts of {k} slots, and {len(c)} came")
    square = mpz(c.key.n) ** 2
    values = to_ints(c.data)
    out = []
    for column in columns.T.tolist():
        product = mpz(1)
        for i, value in enumerate(values):
            exponent = 0
            for x in column[i * k : (i + 1) * k]:
                exponent = (exponent << packing.slot_bits) + x
            exponent <<= packing.slot_bits * (k - len(column[i * k : (i + 1) * k]))
            product = product * gmpy2.powmod(value, exponent, square) % square
        out.append(product)
    return CipherVector(to_residues(out, c.key.width), c.scale + scale, c.key)
