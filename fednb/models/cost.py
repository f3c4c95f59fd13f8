"""What a fit will take, said before it begins: minutes, megabytes, and who spends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import Estimate
from fednb.federation.progress import format_bytes, format_seconds
from fednb.protocols import forecast
from fednb.protocols.batches import Batches
from fednb.protocols.forecast import KeyHolderRates, Rates
from fednb.protocols.rehearsal import rehearse
from fednb.protocols.vertical_logistic import LogisticParams
from fednb.protocols.weights import Weighting


@dataclass(frozen=True)
class MemberCost:
    """What a fit takes of one member."""

    seconds: float  # that it computes; the rest it waits for others
    bytes: int  # that it sends


@dataclass(frozen=True)
class Cost:
    """An estimate of one fit, from a second of measuring at each member; other work there makes it longer.

    Features are taken to have many values: columns with few cost less.
    """

    seconds: float
    bytes: int  # payload between members
    iterations: int  # assumed
    rows: int
    members: Mapping[str, MemberCost]

    def __str__(self) -> str:
        each = ", ".join(f"{name} {format_seconds(cost.seconds)}" for name, cost in self.members.items())
        return (
            f"about {format_seconds(self.seconds)} and {format_bytes(self.bytes)} between members for "
            f"{self.iterations} iterations on {self.rows:,} rows; computing: {each}"
        )

    def __repr__(self) -> str:
        return f"<Cost: {self}>"

    def beside(self, seconds: float, sent: int, iterations: int) -> str:
        """The estimate beside what it came to."""
        return (
            f"estimated {format_seconds(self.seconds)} and {format_bytes(self.bytes)} for {self.iterations} "
            f"iterations; it took {format_seconds(seconds)} and {format_bytes(sent)} for {iterations}."
        )

    def to_message(self) -> Estimate:
        return Estimate(seconds=self.seconds, bytes=self.bytes, iterations=self.iterations)


def estimate(
    frame: VerticalFrame,
    features: Mapping[str, tuple[str, ...]],
    active: str,
    params: LogisticParams,
    seconds: float = 1.0,
    taken: int | None = None,
) -> Cost:
    """Measure at every member that would take part, and reckon. `seconds`: how long each measures, nearly.

    `taken`: iterations that a fit with these features took before.
    """
    federation = frame.federation
    rows = Batches(len(frame), params.batch_size, "").smallest  # of an iteration
    parties = [active, *(party for party in features if party != active)]
    result = federation.run(
        "calibrate",
        cast={"party": parties, "coordinator": [federation.coordinator]},
        params={
            "rows": rows,
            "features": max(len(names) for names in features.values()) + 1,
            "passives": len(parties) - 1,
            "key_bits": params.key_bits,
            "seconds": seconds,
        },
        title=f"Estimate for {', '.join(parties)}",
    )
    expected, fine = rehearse(
        rows,
        [len(features[party]) for party in parties],
        C=params.C,
        tol=0.0 if rows < len(frame) else params.tol,  # the noise of batches hides it
        max_iter=params.max_iter,
        sigmoid=params.sigmoid,
        l1_ratio=params.l1_ratio,
    )
    if taken is not None:
        expected, fine = taken, min(fine, taken)
    found = forecast.forecast(
        rows,
        {party: len(features[party]) for party in parties},
        active,
        federation.coordinator,
        {party: result.read(party, Rates) for party in parties},
        result.read(federation.coordinator, KeyHolderRates),
        expected=expected,
        fine=fine,
        key_bits=params.key_bits,
        weight_bits=Weighting.of(params.class_weight).bits,
    )
    members = {name: MemberCost(found.busy[name], found.sent[name]) for name in found.busy}
    return Cost(found.seconds, found.bytes, expected, len(frame), members)
