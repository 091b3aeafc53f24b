"""A work queue gives each key to one worker at a time and forgets none."""

from __future__ import annotations

import asyncio

import pytest

from minikube_raw.client.clock import ManualClock
from minikube_raw.client.workqueue import ShutDown, WorkQueue


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def queue(clock) -> WorkQueue:
    return WorkQueue(clock=clock, base_delay=1, max_delay=8)


async def test_a_key_added_twice_comes_once(queue):
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_during_work_comes_again_after_it_and_not_before(queue):
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    assert len(queue) == 0, "nobody else may get it meanwhile"
    queue.done(key)
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle


async def test_of_several_delays_the_earliest_counts(queue, clock):
    queue.add_after("a", 10)
    queue.add_after("a", 2)
    queue.add_after("a", 5)
    clock.advance(1.9)
    assert len(queue) == 0
    clock.advance(0.2)
    assert await queue.get() == "a"
    queue.done("a")
    clock.advance(20)
    assert len(queue) == 0


async def test_failures_wait_twice_as_long_each_time_until_forgotten(queue):
    assert [queue.add_rate_limited("a") for _ in range(5)] == [1, 2, 4, 8, 8]
    queue.forget("a")
    assert queue.add_rate_limited("a") == 1


async def test_a_waiting_worker_is_woken(queue):
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await worker == "a"


async def test_a_worker_cancelled_while_being_woken_loses_no_key(queue):
    workers = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add("a")
    workers[0].cancel()
    assert await workers[1] == "a"


async def test_shut_down_ends_waiting_workers(queue):
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.shut_down()
    with pytest.raises(ShutDown):
        await worker
