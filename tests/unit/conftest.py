"""What unit tests of several layers share: an API in memory, and waiting for a state instead of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from memory_api import MemoryAPI

from minikube_raw.client.rest import Client

Eventually = Callable[[Callable[[], Any]], Awaitable[Any]]


@pytest.fixture
def api() -> MemoryAPI:
    return MemoryAPI()


@pytest.fixture
def client(api: MemoryAPI) -> Client:
    return Client(api)


@pytest.fixture
def eventually() -> Eventually:
    """Give the loop turns until the condition is true; fail after a minute."""

    async def wait(condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(60):
            while not (result := condition()):  # noqa: ASYNC110 -- conditions span loops that share no event
                await asyncio.sleep(0.001)
        return result

    return wait


@pytest.fixture
async def background() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]]:
    """Run coroutines beside the test and end them with it; one that fails fails the test."""
    tasks: list[asyncio.Task[Any]] = []

    def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        tasks.append(asyncio.create_task(coroutine))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
