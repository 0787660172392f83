"""What came of a call, and what comes of it after a while."""

from __future__ import annotations

from collections.abc import Awaitable

import trio

import orlop
from orlop.protocol.errors import OrlopError


async def outcome(call: Awaitable[object]) -> str:
    """`ok`, or the class of the error."""
    try:
        await call
    except OrlopError as error:
        return type(error).__name__
    return "ok"


async def until_gone(store: orlop.Store, digest: str) -> None:
    """Collections of content publish nothing, so that one can only be waited for by looking."""
    with trio.fail_after(10):
        while await outcome(store.content.info(digest)) == "ok":
            await trio.sleep(0.002)
