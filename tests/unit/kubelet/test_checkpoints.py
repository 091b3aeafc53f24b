"""POST /checkpoint as a kubelet answers it; the archive itself is the runtime's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import test_utils
from fake_runtime import FakeRuntime
from served_node import Node, run_sandbox, start

from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet.checkpoints import Checkpoints
from minikube_raw.kubelet.server import Server
from minikube_raw.kubelet.watching import FileWatcher
from minikube_raw.runtime import cri


class Runtime(FakeRuntime):
    refused = ""
    asked: tuple[Any, ...] = ()

    async def checkpoint_container(self, container_id: str, location: str, timeout: float = 0) -> None:
        self.asked = (container_id, location, timeout)
        if self.refused:
            raise cri.RuntimeServiceError("CheckpointContainerError", self.refused)


@pytest.fixture
async def runtime() -> Runtime:
    made = Runtime()
    await run_sandbox(made)
    return made


def server(runtime: Runtime, directory: Path) -> Server:
    clock = ManualClock()
    return Server(Node(directory), runtime, FileWatcher(), clock, checkpoints=Checkpoints(runtime, directory, clock))


@pytest.fixture
async def http(runtime: Runtime, tmp_path: Path) -> AsyncIterator[Any]:
    app = server(runtime, tmp_path).application(check_client=False)
    async with test_utils.TestClient(test_utils.TestServer(app)) as client:
        yield client


async def test_the_answer_names_the_archive_on_the_node(http: Any, runtime: Runtime, tmp_path: Path) -> None:
    created = await start(runtime)
    answer = await http.post("/checkpoint/ns/p/c?timeout=5&timeout=7")
    assert answer.status == 200
    (location,) = (await answer.json())["items"]
    assert Path(location).parent == tmp_path
    assert Path(location).name.startswith("checkpoint-p_ns-c-20")
    assert location.endswith("Z.tar")
    assert runtime.asked == (created, location, 7)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("ns/q/c", 404, "pod does not exist"),
        ("ns/p/x", 404, "container x does not exist"),
        ("ns/p/c?timeout=soon", 404, "cannot parse value of timeout parameter"),
        (
            "ns/p/c?timeout=-1",
            500,
            "checkpointing of ns/p/c failed (CheckpointContainer requires the timeout value to be > 0)",
        ),
        ("ns/p/c", 500, "checkpointing of ns/p/c failed (container c not found)"),
    ],
)
async def test_what_cannot_be_is_refused_in_a_kubelets_words(http: Any, path: str, status: int, text: str) -> None:
    answer = await http.post(f"/checkpoint/{path}")
    assert (answer.status, await answer.text()) == (status, text)


async def test_what_the_runtime_says_is_passed_on(http: Any, runtime: Runtime) -> None:
    await start(runtime)
    runtime.refused = "rpc error: code = Unknown desc = no"
    answer = await http.post("/checkpoint/ns/p/c")
    assert answer.status == 500
    assert await answer.text() == "checkpointing of ns/p/c failed (rpc error: code = Unknown desc = no)"


async def test_what_a_killed_kubelet_left_unfinished_goes_and_archives_stay(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / ".unfinished-x/checkpoint").mkdir(parents=True)
    (tmp_path / "checkpoint-p_ns-c-2026.tar").touch()
    server(runtime, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint-p_ns-c-2026.tar"]


async def test_only_the_api_server_and_administrators_may_ask(runtime: Runtime, tmp_path: Path) -> None:
    app = server(runtime, tmp_path).application(check_client=True)
    async with test_utils.TestClient(test_utils.TestServer(app)) as client:
        assert (await client.post("/checkpoint/ns/p/c")).status == 403
    assert runtime.asked == ()
