"""A connection that is made again when it breaks, for all clients that share it."""

from __future__ import annotations

import trio

from ....protocol.errors import OrlopError, Unavailable
from ..targets.interface import Target, TargetMaker

__all__ = ["Line"]

_RETRY_S = 0.05
_PROBE_S = 5.0


class Line:
    """Run `keep`; ask `target`. Whoever meets an error that may mean a broken connection calls `look`."""

    def __init__(self, maker: TargetMaker) -> None:
        self._maker = maker
        self.now: Target | None = None
        """Who answers at this moment; None: nobody."""
        self._trouble: OrlopError = Unavailable("nobody answers")
        self._ready = trio.Event()
        self._broken = trio.Event()
        self._looking = trio.Lock()

    async def keep(self) -> None:
        """Connect, and again whenever it broke. Ends when cancelled. Raises what nobody gets over by waiting: a store
        that is damaged, a library that is not there."""
        while True:
            try:
                async with self._maker() as target:
                    self.now, self._broken = target, trio.Event()
                    self._ready.set()
                    await self._broken.wait()
            except Unavailable as error:
                self._trouble = error
            self._give_up()
            await trio.sleep(_RETRY_S)

    async def target(self, until: float) -> Target:
        """Waits until there is one. Raises Unavailable: there was none by that time."""
        with trio.move_on_at(until):
            while self.now is None:
                await self._ready.wait()
        if self.now is None:
            raise self._trouble
        return self.now

    async def look(self, target: Target) -> None:
        """Does it still answer? If not, it is given up, and everybody waits for the next."""
        async with self._looking:
            if target is not self.now:
                return  # somebody has seen to it
            try:
                with trio.fail_after(_PROBE_S):
                    await target.server_pid()
            except (OrlopError, trio.TooSlowError):
                self._give_up()
                self._broken.set()

    def _give_up(self) -> None:
        if self.now is not None:
            self.now, self._ready = None, trio.Event()
