"""A node of its own for each runtime test, in a mount namespace that ends with the session."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

pytest.register_assert_rewrite("crash_points", "runtime_node")  # before anybody imports them

from runtime_node import Node, running_node

from minikube_raw.linux import mounts, namespaces
from minikube_raw.runtime.service import Runtime


@pytest.fixture(scope="session", autouse=True)
def own_mount_namespace() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    before = namespaces.open_namespace("mnt")
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
    yield
    with contextlib.suppress(OSError):  # EINVAL while some thread of another test still shares our root directory
        namespaces.setns(before, namespaces.CLONE_NEWNS)
    os.close(before)


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[tuple[Node, Runtime]]:
    async with running_node(tmp_path) as made:
        yield made


@pytest.fixture
def node(parts: tuple[Node, Runtime]) -> Node:
    return parts[0]


@pytest.fixture
def runtime(parts: tuple[Node, Runtime]) -> Runtime:
    return parts[1]
