"""How much is asked of one host at a time, how fast, and how often again. Source: spec registry 4; by trio's clock."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from orlop.protocol.registry.traffic import HostTraffic, Traffic, TrafficLimits


@pytest.mark.parametrize("connections", [1, 3])
async def test_no_more_requests_at_once_than_there_are_slots(
    autojump_clock: trio.testing.MockClock, connections: int
) -> None:
    host, now, most = HostTraffic(TrafficLimits(connections)), 0, 0

    async def ask() -> None:
        nonlocal now, most
        async with host.slot():
            now += 1
            most = max(most, now)
            await trio.sleep(1)
            now -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(3 * connections):
            nursery.start_soon(ask)
    assert most == connections
    assert trio.current_time() == pytest.approx(3)  # a mock clock begins at zero
    assert not host.busy


async def test_one_task_may_have_several_slots(autojump_clock: trio.testing.MockClock) -> None:
    host = HostTraffic(TrafficLimits(2))
    async with host.slot(), host.slot():
        assert host.busy
        with trio.move_on_after(5) as third:
            async with host.slot():
                raise AssertionError("a third slot of two")
        assert third.cancelled_caught
    assert not host.busy


async def test_who_sends_does_not_wait_for_who_reads_nor_they_for_it(autojump_clock: trio.testing.MockClock) -> None:
    """A copy sends what it reads from the same host, so it holds a slot of each kind."""
    host = HostTraffic(TrafficLimits(1))
    with trio.fail_after(5):
        async with host.slot(sends=True), host.slot():
            assert host.busy
            with trio.move_on_after(1) as second:
                async with host.slot(sends=True):
                    raise AssertionError("a second slot of one")
            assert second.cancelled_caught
    assert not host.busy


async def test_a_slot_comes_back_whatever_became_of_the_request(autojump_clock: trio.testing.MockClock) -> None:
    host = HostTraffic(TrafficLimits(1))
    with pytest.raises(OSError, match="lost"):
        async with host.slot():
            raise OSError("lost")
    with trio.move_on_after(1):
        async with host.slot():
            await trio.sleep_forever()
    with trio.fail_after(1):
        async with host.slot():
            assert host.busy


async def test_who_is_cancelled_while_it_waits_leaves_the_line(autojump_clock: trio.testing.MockClock) -> None:
    host, had = HostTraffic(TrafficLimits(1)), []

    async def ask(name: str, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            async with host.slot():
                had.append(name)
                await trio.sleep(2)

    async with trio.open_nursery() as nursery:
        for name, patience_s in (("first", 9.0), ("impatient", 1.0), ("patient", 9.0)):
            nursery.start_soon(ask, name, patience_s)
            await trio.testing.wait_all_tasks_blocked()
    assert had == ["first", "patient"]


async def test_requests_are_spread_over_time(autojump_clock: trio.testing.MockClock) -> None:
    host, at = HostTraffic(TrafficLimits(connections=32, requests_per_s=4)), []

    async def ask() -> None:
        async with host.slot():
            at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask)
    assert at == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.25])
    await trio.sleep(10)
    at.clear()
    await ask()
    await ask()
    assert at == pytest.approx([11.25, 11.5])  # what was not used is not saved up


async def test_without_a_pace_nobody_waits(autojump_clock: trio.testing.MockClock) -> None:
    host = HostTraffic(TrafficLimits())
    for _ in range(1000):
        async with host.slot():
            pass
    assert trio.current_time() == 0


def test_retries_run_out_and_five_good_answers_earn_one() -> None:
    host = HostTraffic(TrafficLimits(retries=3))
    assert [host.may_retry() for _ in range(5)] == [True, True, True, False, False]
    for _ in range(4):
        host.answered()
    assert not host.may_retry()
    host.answered()
    assert host.may_retry()
    assert not host.may_retry()


def test_no_more_retries_are_saved_up_than_was_said() -> None:
    host = HostTraffic(TrafficLimits(retries=2))
    for _ in range(100):
        host.answered()
    assert [host.may_retry() for _ in range(3)] == [True, True, False]


def test_without_retries_there_is_none() -> None:
    host = HostTraffic(TrafficLimits(retries=0))
    for _ in range(100):
        host.answered()
    assert not host.may_retry()


def test_each_host_has_its_own_share_which_all_who_ask_it_have_together() -> None:
    traffic = Traffic(TrafficLimits(retries=1))
    assert traffic.to("a:1") is traffic.to("a:1")
    assert traffic.to("a:1").may_retry()
    assert not traffic.to("a:1").may_retry()
    assert traffic.to("a:2").may_retry()


async def test_of_very_many_hosts_those_that_are_asked_right_now_stay_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    traffic = Traffic(TrafficLimits(connections=1))
    busy = traffic.to("busy")
    async with busy.slot():
        for number in range(5000):
            traffic.to(f"host-{number}")
        assert traffic.to("busy") is busy
