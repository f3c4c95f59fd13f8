"""A party's features in coordinates that only the party knows: what others compute there tells them no feature.

    U = X·T     with UᵀU + TᵀPT = n·I          T: whitens X with its penalty P, then rotates at random

Every covariance in U is one in X once T is put back, so whoever inverts a matrix of U helps the owner of T and reads
nothing of single features: columns of U are uniform mixtures of all of them, with one variance and no correlation.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from fednb.errors import DataError
from fednb.protocols.rows import Floats, Matrix
from fednb.protocols.steps import squares

LEAST = 1e-9  # smallest eigenvalue of a correlation matrix, of its largest: below, columns depend on one another
NOTABLE = 0.1  # weight in a dependence


@dataclass(frozen=True)
class SecretBasis:
    """One party's T."""

    transform: Floats  # [d, d]
    penalty: Floats  # [d, d] of the objective, in these coordinates

    def __repr__(self) -> str:
        return "<SecretBasis>"

    @classmethod
    def of(cls, party: str, X: Matrix, names: Sequence[str], penalty: Floats) -> Self:
        """For X [n, d], and `penalty` [d] of the squares of coefficients. DataError where columns depend on others."""
        n, d = X.shape
        curvature = squares(X) / n + np.diag(penalty) / n
        size = np.sqrt(np.diag(curvature))
        values, vectors = np.linalg.eigh(curvature / np.outer(size, size))
        if values[0] <= LEAST * values[-1]:
            among = [repr(name) for name, weight in zip(names, vectors[:, 0], strict=True) if abs(weight) > NOTABLE]
            raise DataError(
                f"{party}'s columns {', '.join(among)} depend on one another, so their coefficients have no standard "
                "errors. Leave one of them out and fit again."
            )
        # a mask, and no part of the model: `run.rng` is not for secrets
        normal = np.random.default_rng(secrets.randbits(128)).normal(size=(d, d))
        q, r = np.linalg.qr(normal)
        rotation = q * np.sign(np.diag(r))  # uniform over all rotations (Mezzadri 2007)
        transform = (vectors / np.sqrt(values) / size[:, None]) @ rotation
        return cls(transform, transform.T @ np.diag(penalty) @ transform)

    def covariance(self, block: Floats) -> Floats:
        """[d, d] in the party's own coordinates, of a block in the secret ones."""
        found = self.transform @ block @ self.transform.T
        return (found + found.T) / 2.0
