"""The demo: a bank and an invoice agency build a risk model together, on data that is made up here."""

from __future__ import annotations

from fednb.demo.reference import conclude, references
from fednb.demo.run import main

__all__ = ["conclude", "main", "references"]
