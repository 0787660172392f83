"""Every kind of damage is found, mended or set aside where there is one safe answer, and left to a person where there
is none; nothing that lives is lost. Source: RELIABILITY 3.9, DESIGN 8."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from orlop.protocol.messages import Finding, Problem
from orlop.storage import keys
from orlop.storage.memory import MemoryStore

from ..support.damages import ASIDE, DAMAGES, PERSON, Damage
from ..support.furnished import Furnished, alive, checked, dump, furnish, running


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    folder, engine = tmp_path_factory.mktemp("furnished") / "store", MemoryStore()

    async def build() -> None:
        async with running(folder, engine) as up:
            await furnish(up.store)

    trio.run(build)
    return Furnished(folder, engine)


def _names(findings: list[Finding], each: Damage) -> list[Finding]:
    """What is not known to live is known again when the full mark was compared, before it is looked at itself."""
    problems = {each.problem, Problem.MARK} if each.problem is Problem.STATE else {each.problem}
    return [found for found in findings if found.problem in problems and each.what in found.name]


@pytest.mark.parametrize("each", DAMAGES, ids=lambda each: each.name.replace("_", " "))
async def test_damage_is_found_and_mended(furnished: Furnished, tmp_path: Path, each: Damage) -> None:
    store = furnished.copy(tmp_path / "store")
    before = {}
    if not each.hurts:
        async with store.opened() as up:
            before = await alive(up.store)
    each.do(store)
    async with store.opened() as up:
        found, done = await checked(up.store)
        assert _names(found, each), found
        assert done.fixed == 0
        mended, done = await checked(up.store, repair=True)
        assert each.fixed in {finding.fixed for finding in _names(mended, each)}, mended
        if each.fixed is ASIDE:
            assert list((store.folder / "quarantine").iterdir())
        if not each.hurts:
            assert (await up.store.collect(full=True)).differed == 0
        quiet = dump(store.engine)
        again, done = await checked(up.store, repair=True)
        assert dump(store.engine) == quiet
        if each.fixed is PERSON:
            assert again
            assert done.fixed == 0
        else:
            assert not again
            assert done.compared
        assert {(f.problem, f.name) for f in again} <= {(f.problem, f.name) for f in mended} | {
            (Problem.BYTES, each.what)
        }
    async with store.opened() as up:
        last, done = await checked(up.store)
        assert {(f.problem, f.name) for f in last} == {(f.problem, f.name) for f in again}
        if each.hurts:
            return
        assert done.compared
        now = await alive(up.store)
        for name, what in before.items():
            if each.lost is None or each.lost not in name:
                assert now[name] == what, name
        assert (await up.store.collect(full=True)).differed == 0


_UNSEEN = (keys.FORMAT, keys.STORE_ID, keys.COMMIT, keys.GRACE, keys.DELETED_IMAGES)
"""Nothing else speaks of these. Without its format a store counts as a new one."""
_SEALED = tuple(b"\x01" + region for region in (b"r", b"n", b"B", b"D", b"V", b"j", b"u"))


@pytest.mark.slow
async def test_no_key_is_lost_or_flipped_unseen(furnished: Furnished, tmp_path: Path) -> None:
    """Whatever key is taken away, or, where values have a checksum, changed by a bit."""
    store = furnished.copy(tmp_path / "store")
    unseen = []
    for key, value in dump(furnished.engine).items():
        nothing = key.startswith(b"\x01c#") and not int.from_bytes(value, "big")
        changes = [] if key.startswith(_UNSEEN) or nothing else [None]
        if key.startswith(_SEALED):
            changes.append(value[:-1] + bytes([value[-1] ^ 1]))
        for changed in changes:
            store.engine = furnished.engine.power_cut()
            store.engine.write({key: changed})
            async with store.opened() as up:
                if not (await checked(up.store))[0]:
                    unseen.append((key, changed))
    assert unseen == []


async def test_a_collectors_state_that_cannot_be_read_is_found_out_anew(furnished: Furnished, tmp_path: Path) -> None:
    store = furnished.copy(tmp_path / "store")
    async with store.opened() as up:
        before = await alive(up.store)
    store.engine.write({keys.CLOCK: b"\xff nonsense"})
    async with store.opened() as up:
        assert await alive(up.store) == before
        assert (await up.store.collect(full=True)).differed == 0
        assert (await checked(up.store))[0] == []
