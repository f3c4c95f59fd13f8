"""Keys that the tests share: making them is the slow part."""

from __future__ import annotations

import pytest
from hypothesis import settings

from fednb.crypto.paillier import PrivateKey, generate

settings.register_profile("without deadlines", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("without deadlines")


@pytest.fixture(scope="session")
def short() -> PrivateKey:
    """A key that is quick to work with and protects nothing."""
    return generate(512, insecure_short_key=True)


@pytest.fixture(scope="session")
def full() -> PrivateKey:
    """A key of the length that is used."""
    return generate(2048)
