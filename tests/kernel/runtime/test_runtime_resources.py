"""Limits of pods and containers that run already: raised, lowered, refused, remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
from runtime_node import Node, container, eventually, run_to_end

from minikube_raw.kubelet import numa
from minikube_raw.linux import cgroup_mounts
from minikube_raw.linux.cgroups import manager
from minikube_raw.runtime.cri import ContainerConfig, LinuxContainerResources, RuntimeServiceError
from minikube_raw.runtime.resources import update_in_order
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root
MIB = 1 << 20


def limited(cpus: float, mebibytes: int) -> LinuxContainerResources:
    quota, shares = int(cpus * 100_000), int(cpus * 1024)
    return LinuxContainerResources(cpu_shares=shares, cpu_quota=quota, memory_limit_in_bytes=mebibytes * MIB)


async def running(runtime: Runtime, sandbox: str, config: ContainerConfig) -> str:
    container_id = await runtime.create_container(sandbox, config)
    await runtime.start_container(container_id)
    return container_id


async def cgroup_of_the_pod(node: Node, runtime: Runtime) -> str:
    (sandbox,) = await runtime.list_pod_sandboxes()
    return f"{node.cgroup}/kubepods/pod{sandbox.config.uid}"


async def test_a_pod_grows_and_shrinks_around_its_containers(node: Node, runtime: Runtime) -> None:
    small, large = limited(0.5, 32), limited(2, 64)
    sandbox = await runtime.run_pod_sandbox(node.pod(resources=small))
    held = await running(runtime, sandbox, container("sleep", "1000", resources=small))
    pod = await cgroup_of_the_pod(node, runtime)
    for old, new in ((small, large), (large, small)):
        await update_in_order(runtime, sandbox, old, new, {held: new})
        for cgroup in (pod, f"{pod}/{held}"):
            stats = manager(cgroup).stats()
            assert stats.memory_limit == new.memory_limit_in_bytes
            assert stats.cpu_limit == (new.cpu_quota or 0) / 100_000
        status = await runtime.container_status(held)
        assert status is not None
        assert status.resources == new


async def test_a_limit_below_what_is_in_use_is_refused_and_nothing_is_killed(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    hog = "x=$(head -c 24000000 /dev/zero | busybox tr '\\0' x); echo full; sleep 1000"
    held = await running(runtime, sandbox, container("sh", "-c", hog, resources=limited(1, 128)))
    group = manager(f"{await cgroup_of_the_pod(node, runtime)}/{held}")
    await eventually(lambda: (group.stats().memory_working_set or 0) > 20 * MIB)
    with pytest.raises(RuntimeServiceError, match="below the memory in use"):
        await runtime.update_container_resources(held, limited(1, 8))
    assert group.stats().memory_limit == 128 * MIB
    assert group.procs()


async def test_a_container_that_waits_to_start_gets_the_changed_limits(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    held = await runtime.create_container(sandbox, container("sleep", "1000", resources=limited(1, 16)))
    await runtime.update_container_resources(held, limited(1, 24))
    await runtime.start_container(held)
    assert manager(f"{await cgroup_of_the_pod(node, runtime)}/{held}").stats().memory_limit == 24 * MIB


async def test_a_container_has_memory_of_the_numa_nodes_that_it_is_given(node: Node, runtime: Runtime) -> None:
    first = str(min(each.number for each in numa.read()))
    sandbox = await runtime.run_pod_sandbox(node.pod())
    own = LinuxContainerResources(cpuset_mems=first)
    asking = container("grep", "Mems_allowed_list", "/proc/self/status", resources=own)
    status = await run_to_end(runtime, sandbox, asking)
    assert node.output(status).split() == ["Mems_allowed_list:", first]

    nowhere = LinuxContainerResources(cpuset_mems="63")
    refused = await runtime.create_container(sandbox, container("true", name="nowhere", resources=nowhere))
    with pytest.raises(RuntimeServiceError, match=r"cpuset\.mems"):
        await runtime.start_container(refused)


async def test_what_this_host_cannot_enforce_is_told_once(node: Node, runtime: Runtime) -> None:
    told: list[tuple[str, str]] = []
    runtime.on_warning(lambda reason, message: told.append((reason, message)))
    odd = LinuxContainerResources(hugepage_limits={"3MB": 0})  # pages of a size that no kernel has
    sandbox = await runtime.run_pod_sandbox(node.pod(resources=odd))
    for name in ("a", "b"):
        await running(runtime, sandbox, container("sleep", "1000", name=name, resources=odd))
    assert told == [("LimitNotEnforced", "hugetlb is not enforced: this host has no counterpart for it")]


async def test_v2_files_work_where_memory_is_on_v2_and_are_told_elsewhere(node: Node, runtime: Runtime) -> None:
    told: list[str] = []
    runtime.on_warning(lambda _, message: told.append(message.split()[0]))
    asked = LinuxContainerResources(unified={"memory.high": str(64 * MIB), "memory.oom.group": "1"})
    sandbox = await runtime.run_pod_sandbox(node.pod())
    held = await running(runtime, sandbox, container("sleep", "1000", resources=asked))
    if "memory" in cgroup_mounts.hierarchies().v1:
        assert told == ["memory_high", "oom_group"]
    else:
        unified = manager(f"{await cgroup_of_the_pod(node, runtime)}/{held}").directories[0]
        assert Path(unified, "memory.high").read_text() == f"{64 * MIB}\n"


async def test_a_child_that_memory_ran_out_for_is_told_and_the_container_is_not_oom_killed(
    node: Node, runtime: Runtime
) -> None:
    told: list[str] = []
    runtime.on_warning(lambda reason, message: told.append(f"{reason}: {message}"))
    sandbox = await runtime.run_pod_sandbox(node.pod("frugal"))
    script = "tail /dev/zero; exit 0"  # the kernel chooses the child: it is by far the largest
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, resources=limited(1, 20)))
    if cgroup_mounts.hierarchies().mode == "v2":  # there the whole container may go
        return
    assert (status.exit_code, status.reason) == (0, "Completed")
    where = "OOMKilling: memory ran out in container main of pod default/frugal"
    assert told == [f"{where}: the kernel killed 1 of its processes, not the first"]
