"""What the book holds: figures that were measured, to be written to JSON and made into a page."""

from __future__ import annotations

from statistics import median
from typing import Literal

import msgspec

from orlop.bin.load.result import Machine

__all__ = ["Book", "Comparison", "Section", "Side"]


class Side(msgspec.Struct, frozen=True):
    """One of the two, all rounds: `values` in the comparison's unit, `cpu_us` of the server for each operation (0: not
    measured), `p99_us` of the operation (0: not measured)."""

    values: list[float]
    cpu_us: float = 0.0
    p99_us: float = 0.0

    @property
    def value(self) -> float:
        return median(self.values)


class Comparison(msgspec.Struct, frozen=True):
    """One line. `ratio` is above 1 where orlop is better. `other`: containerd, or a limit of this machine; None: orlop
    alone. `key` finds the remark."""

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    orlop: Side
    other: Side | None = None
    aim: str = ""

    @property
    def ratio(self) -> float:
        if self.other is None or not self.orlop.value or not self.other.value:
            return 0.0
        ratio = self.orlop.value / self.other.value
        return ratio if self.better == "higher" else 1 / ratio


class Section(msgspec.Struct, frozen=True):
    """`plot`: of which comparisons, by key, a picture is made; `across` names its axis."""

    key: str
    title: str
    other: str
    comparisons: list[Comparison]
    plots: list[str] = []


class Book(msgspec.Struct, frozen=True):
    machine: Machine
    measured_on: str
    versions: dict[str, str]
    quick: bool
    sections: list[Section]
