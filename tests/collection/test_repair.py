"""Every kind of damage is found, mended or set aside where there is one safe answer, and left to a person where there
is none; nothing that lives is lost. Source: RELIABILITY 3.9, DESIGN 8."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from orlop.protocol.messages import Finding, Problem
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
