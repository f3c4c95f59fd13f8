"""Tests here may share what another file of tests has."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the world of test_protocol_rules
