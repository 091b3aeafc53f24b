"""Old runs of containers are removed, those that are still asked for are not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fake_runtime import FakeRuntime

from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet.containergc import ContainerGC
from minikube_raw.runtime import cri


class Runtime(FakeRuntime):
    """Two pods, whose containers log into a directory."""

    def __init__(self, logs: Path) -> None:
        super().__init__()
        self.logs = logs

    async def restart(self, pod: str, name: str, times: int, *, ends: bool = False) -> None:
        sandbox = next((each.id for each in self.sandboxes.values() if each.config.uid == pod), "")
        if not sandbox:
            sandbox = await self.run_pod_sandbox(cri.PodSandboxConfig(name=pod, namespace="ns", uid=pod))
        for attempt in range(times):
            container = await self.create_container(sandbox, cri.ContainerConfig(name, attempt, "i"))
            log = self.logs / f"{pod}-{name}-{attempt}.log"
            for path in (log, log.with_name(f"{log.name}.20231114-221320.gz")):
                path.write_bytes(b"")
            self.containers[container] = msgspec.structs.replace(self.containers[container], log_path=str(log))
            await self.start_container(container)
            if ends or attempt < times - 1:
                self.exit(container, 1)

    def left(self) -> set[tuple[str, str, int]]:
        uids = {each.id: each.config.uid for each in self.sandboxes.values()}
        return {(uids[each.sandbox_id], each.name, each.attempt) for each in self.containers.values()}


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path)


async def test_the_running_one_and_the_one_before_stay(runtime: Runtime, tmp_path: Path) -> None:
    await runtime.restart("a", "web", 5)
    await runtime.restart("a", "sidecar", 1)
    await runtime.restart("b", "web", 3, ends=True)
    await ContainerGC(runtime, ManualClock()).collect()

    assert runtime.left() == {("a", "web", 4), ("a", "web", 3), ("a", "sidecar", 0), ("b", "web", 2), ("b", "web", 1)}
    logs = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("a-web"))
    assert logs == [f"a-web-{n}.log{kind}" for n in (3, 4) for kind in ("", ".20231114-221320.gz")]


async def test_a_second_look_finds_nothing_to_do(runtime: Runtime) -> None:
    await runtime.restart("a", "web", 4)
    collection = ContainerGC(runtime, ManualClock())
    await collection.collect()
    before = runtime.left()
    await collection.collect()
    assert runtime.left() == before
