"""Whether an object still is: what was condemned in a sealed round is no more, though it may not be swept yet."""

from __future__ import annotations

from .. import keys
from ..engine import Reader
from .state import IDLE, Phase, State, decode_clock, decode_states

__all__ = ["is_gone", "sealed_rounds"]


async def sealed_rounds(reader: Reader) -> tuple[int, ...]:
    """Rounds that are sealed and not swept; most of the time there are none."""
    value = await reader.get(keys.CLOCK)
    return decode_clock(value).sealed if value is not None else ()


async def is_gone(reader: Reader, sealed: tuple[int, ...], state_key: bytes) -> bool:
    value = await reader.get(state_key)
    if value is None:
        return False
    normal, flat = decode_states(value)
    return _gone(normal, sealed) and _gone(flat, sealed) and not (normal == IDLE and flat == IDLE)


def _gone(state: State, sealed: tuple[int, ...]) -> bool:
    return state == IDLE or (state.phase == Phase.SWEEP and state.round in sealed)
