from __future__ import annotations

import asyncio
from pathlib import Path

from minikube_raw.runtime.cri import PodSandboxConfig
from minikube_raw.runtime.layout import Layout
from minikube_raw.runtime.records import SandboxRecord
from minikube_raw.runtime.state import NodeState


def record(name: str, uid: str) -> SandboxRecord:
    config = PodSandboxConfig(name=name, namespace="n", uid=uid)
    return SandboxRecord(id=name, config=config, cgroup="c", boot_id="b", created_at=1)


def test_a_pods_sandboxes_are_found_among_others_also_by_the_next_kubelet(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "state"), str(tmp_path / "run"))
    state = NodeState(layout, "root")
    for each in (record("one", "a"), record("other", "b"), record("two", "a")):
        state.sandbox_records.write(each.id, each)
        state.know_sandbox(each)
    later = NodeState(layout, "root")
    later.load()
    for kubelet in (state, later):
        assert [sandbox.id for sandbox in kubelet.sandboxes_of("a")] == ["one", "two"]
        assert kubelet.sandboxes_of("nobody") == []


def test_a_sandbox_that_is_forgotten_twice_is_gone_once(tmp_path: Path) -> None:
    state = NodeState(Layout(str(tmp_path / "state"), str(tmp_path / "run")), "root")
    first, second = state.know_sandbox(record("one", "a")), state.know_sandbox(record("two", "a"))
    state.forget_sandbox(first)
    state.forget_sandbox(first)
    assert state.sandboxes_of("a") == [second]
    assert list(state.sandboxes) == ["two"]
    state.forget_sandbox(second)
    assert state.sandboxes_of("a") == []


async def test_work_that_is_begun_while_other_work_is_called_off_ends_with_it(tmp_path: Path) -> None:
    state = NodeState(Layout(str(tmp_path / "state"), str(tmp_path / "run")), "")

    async def wait() -> None:
        await asyncio.Event().wait()

    async def wait_and_begin_more() -> None:
        try:
            await wait()
        finally:
            begun.append(state.background(wait()))

    begun = [state.background(wait_and_begin_more())]
    await asyncio.sleep(0)
    await state.close()
    assert len(begun) == 2
    assert all(task.done() for task in begun)


async def test_work_for_the_background_of_a_runtime_that_has_left_is_called_off(tmp_path: Path) -> None:
    state = NodeState(Layout(str(tmp_path / "state"), str(tmp_path / "run")), "")
    await state.close()

    async def work() -> None:
        await state.in_thread(lambda: None)

    task = state.background(work())
    await asyncio.wait([task])
    assert task.cancelled()
