"""Changing the limits of what already runs: CRI's UpdateContainerResources and UpdatePodSandboxResources.

A hierarchy refuses a child that may use more than its parent (v1's cpu quota) or lets the parent's old limit win, so a
pod that changes has its cgroup raised first and lowered last: `update_in_order`. The kernel is asked before the record is
written; a crash between the two leaves a record that the next update corrects.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from minikube_raw.linux.cgroups import Limits, manager

from . import spec
from .cri import LinuxContainerResources, RuntimeService, RuntimeServiceError
from .state import NodeState

UNLIMITED = -1
REFUSED = "UpdateContainerResourcesError"


async def update_in_order(
    runtime: RuntimeService,
    sandbox_id: str,
    old: LinuxContainerResources,
    new: LinuxContainerResources,
    containers: Mapping[str, LinuxContainerResources],
) -> None:
    """Change a pod's cgroup from `old` to `new` and its containers' (by id) in between, never with less around than inside.

    Raises RuntimeServiceError from the first step that was refused; asking again continues.
    """
    await runtime.update_pod_sandbox_resources(sandbox_id, widest(old, new))
    for container_id, resources in containers.items():
        await runtime.update_container_resources(container_id, resources)
    await runtime.update_pod_sandbox_resources(sandbox_id, new)


def widest(old: LinuxContainerResources, new: LinuxContainerResources) -> LinuxContainerResources:
    """The more generous of two sets of limits, field by field; what either leaves alone is left alone."""
    return msgspec.structs.replace(
        new,
        cpu_shares=_larger(old.cpu_shares, new.cpu_shares),
        cpu_quota=_larger(old.cpu_quota, new.cpu_quota),
        memory_limit_in_bytes=_larger(old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        pids_limit=_larger(old.pids_limit, new.pids_limit),
    )


def _larger(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return None
    return max(one, other) if min(one, other) > 0 else UNLIMITED


class Resources:
    """The two verbs on one node's sandboxes and containers."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    async def update_container(self, container_id: str, resources: LinuxContainerResources) -> None:
        """UpdateContainerResources; a container that has not started yet gets its limits when it does."""
        sandbox, container = self._state.container(container_id)
        async with sandbox.lock:
            record = container.record
            wanted = _over(record.config.resources, resources)
            if container.running:
                await self._write(record.request["cgroup"], resources)
            record.config = msgspec.structs.replace(record.config, resources=wanted)
            record.request["limits"] = spec.limits(wanted)
            record.request["spec"]["linux"]["resources"] = spec.resources_spec(wanted)
            self._state.container_records.write(container_id, record)

    async def update_sandbox(self, sandbox_id: str, resources: LinuxContainerResources) -> None:
        """UpdatePodSandboxResources."""
        sandbox = self._state.sandbox(sandbox_id)
        async with sandbox.lock:
            record = sandbox.record
            if record.ready and not record.stopped:
                await self._write(record.cgroup, resources)
            record.config = msgspec.structs.replace(record.config, resources=_over(record.config.resources, resources))
            self._state.sandbox_records.write(sandbox_id, record)

    async def _write(self, cgroup: str, resources: LinuxContainerResources) -> None:
        """In a thread: lowering a memory limit reclaims what is above it."""
        try:
            not_enforced = await self._state.in_thread(lambda: _write(cgroup, resources))
        except OSError as error:
            raise RuntimeServiceError(REFUSED, f"failed to update resources: {error}") from error
        self._state.not_enforced(not_enforced)


def _write(cgroup: str, resources: LinuxContainerResources) -> list[str]:
    group = manager(cgroup)
    limit = resources.memory_limit_in_bytes or 0
    in_use = (group.stats().memory_working_set or 0) if limit > 0 else 0
    if in_use > limit > 0:  # v1 would refuse with EBUSY, v2 would kill
        text = f"memory limit {limit} is below the memory in use ({in_use} bytes that cannot be reclaimed)"
        raise RuntimeServiceError(REFUSED, text)
    return group.set_limits(Limits(**spec.limits(resources)))


def _over(old: LinuxContainerResources, new: LinuxContainerResources) -> LinuxContainerResources:
    """What is enforced after an update: `new` where it says something, else `old`."""
    given = {name: value for name, value in msgspec.structs.asdict(new).items() if value not in (None, {})}
    return msgspec.structs.replace(old, **{**given, "oom_score_adj": old.oom_score_adj})
