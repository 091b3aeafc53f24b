"""A node of pod workers for each test that asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from worked_node import Node


@pytest.fixture
async def node(tmp_path: Any) -> AsyncIterator[Node]:
    tasks = asyncio.TaskGroup()
    async with tasks:
        made = Node(tmp_path, tasks)
        yield made
        for task in tasks._tasks:
            task.cancel()
