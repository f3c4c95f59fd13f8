"""Tests here may share what another file of tests has."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "protocols")]  # the world of test_protocol_rules; spu_stand_in
