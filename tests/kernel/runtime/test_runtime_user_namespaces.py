"""Pods with a user namespace of their own: root inside, nobody outside."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from runtime_node import SHARED_PID, Node, container, ended, eventually, run_to_end

from minikube_raw.linux import features
from minikube_raw.runtime import apparmor, userids
from minikube_raw.runtime.cri import Mount, ProfileType, SecurityContext, SecurityProfile
from minikube_raw.runtime.service import Runtime

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not features.idmapped_mounts(), reason="this kernel has no idmapped mounts"),
]


@pytest.fixture(autouse=True, params=["detached layers", "attached layers"])
def way_of_layers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs also as on a kernel that wants layers attached; the node's launcher starts afterwards."""
    if request.param == "attached layers":
        monkeypatch.setenv("MINIKUBE_RAW_NO_OVERLAY_DETACHED_LAYERS", "1")


def userns_pod(node: Node, **changes: object) -> object:
    return node.pod(user_namespace=True, **changes)


async def test_root_inside_is_an_ordinary_user_outside(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(userns_pod(node))
    script = """
        cat /proc/self/uid_map /proc/self/gid_map; id -u; ls -ln /etc/passwd; touch /made; ls -ln /made
        for kind in net ipc uts pid mnt cgroup user; do readlink /proc/self/ns/$kind; done
        echo again > /dev/stdout; cat /dev/null; grep NSpid /proc/self/status; ls /sys/class/net; ls /dev; grep Cap /proc/self/status
        exec sleep 100
    """
    created = await runtime.create_container(sandbox, container("sh", "-c", script))
    await runtime.start_container(created)
    status = await runtime.container_status(created)
    executed = await runtime.exec_sync(
        created, ["sh", "-c", "cat /proc/self/uid_map; id -u; cat /made; echo b > /made2"]
    )
    first = runtime._state.sandboxes[sandbox].record.first_user_id
    assert status is not None
    assert os.stat(f"/proc/{status.pid}").st_uid == first
    assert f"0 {first} 65536" in " ".join(executed.stdout.decode().split())
    assert executed.exit_code == 0, executed.stderr
    await eventually(lambda: "CapAmb" in node.output(status))
    await runtime.stop_container(created, 0)
    await ended(runtime, created)
    output = node.output(status)
    assert node.output(status, "stderr") == ""
    assert f"0 {first} 65536" in " ".join(output.split())
    assert "again\n" in output
    assert "root" not in output
    upper = Path(runtime._state.containers[created].record.request["rootfs"]["upper"])
    assert (upper / "made").stat().st_uid == first
    assert (upper / "made2").stat().st_uid == first


async def test_the_user_namespace_owns_what_the_pod_may_administer(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(userns_pod(node, sysctls={"net.ipv4.ip_unprivileged_port_start": "80"}))
    script = """
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start && ip link add x type veth peer name y && ip link show x && mkdir /t &&
        mount -t tmpfs none /t && hostname changed && hostname && umount /t && touch /dev/shm/shared && echo done
    """
    # On a node with AppArmor the default profile refuses every mount, whatever the capabilities.
    free = SecurityProfile(ProfileType.UNCONFINED)
    admin = SecurityContext(add_capabilities=("NET_ADMIN", "SYS_ADMIN"), apparmor=free)
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, security=admin))
    assert node.output(status).startswith("80\n"), node.log(status)
    assert node.output(status).endswith("changed\ndone\n"), node.log(status)


@pytest.mark.skipif(not apparmor.can_confine(), reason="this host has no AppArmor to confine with")
async def test_the_default_apparmor_profile_refuses_mounts_to_the_root_of_a_user_namespace_too(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(userns_pod(node))
    script = "hostname changed && hostname; mkdir /t; mount -t tmpfs none /t || cat /proc/self/attr/current"
    admin = SecurityContext(add_capabilities=("SYS_ADMIN",))
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, security=admin))
    assert node.output(status) == f"changed\n{apparmor.DEFAULT} (enforce)\n", node.log(status)
    assert "Permission denied" in node.output(status, "stderr")


async def test_volumes_show_the_owners_they_have_on_the_node(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o770)
    os.chown(volume, 0, 2000)
    volume.chmod(0o2770)
    (volume / "file").write_text("content\n")
    sandbox = await runtime.run_pod_sandbox(userns_pod(node))
    security = SecurityContext(run_as_user=1000, supplemental_groups=(2000,))
    config = container(
        *("sh", "-c", "cat /v/file; echo new > /v/new; stat -c %u:%g /v/new /etc/hosts"),
        mounts=(Mount("/v", str(volume)),),
        security=security,
    )
    status = await run_to_end(runtime, sandbox, config)
    assert node.output(status) == "content\n1000:2000\n0:0\n", node.log(status)
    assert (volume / "new").stat().st_uid == 1000


async def test_containers_of_a_shared_process_namespace_and_a_later_one_are_in_it(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(userns_pod(node, namespaces=SHARED_PID))
    first = await run_to_end(runtime, sandbox, container("cat", "/proc/1/comm", "/proc/self/uid_map", name="one"))
    second = await run_to_end(runtime, sandbox, container("readlink", "/proc/self/ns/user", name="two"))
    assert "pause" in node.output(first), node.log(first)
    assert "user:" in node.output(second)


async def test_a_keeper_that_takes_over_starts_and_executes_inside(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(userns_pod(node))
    created = await runtime.create_container(sandbox, container("sleep", "100"))
    await runtime.start_container(created)
    peer = runtime._state.sandboxes[sandbox].peer
    assert peer is not None
    before = (await runtime.exec_sync(created, ["readlink", "/proc/self/ns/user"])).stdout
    os.kill(keeper_of(runtime, created), signal.SIGKILL)
    async with asyncio.timeout(60):
        while runtime._state.sandboxes[sandbox].peer in (peer, None) or runtime._state.sandboxes[sandbox].replacing:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await runtime.exec_sync(created, ["readlink", "/proc/self/ns/user"])).stdout == before
    later = await run_to_end(runtime, sandbox, container("readlink", "/proc/self/ns/user", name="later"))
    assert node.output(later).encode() == before


def keeper_of(runtime: Runtime, container_id: str) -> int:
    identity = runtime._state.containers[container_id].identity
    assert identity is not None
    stat = Path(f"/proc/{identity.pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


async def test_ranges_of_living_sandboxes_never_meet_and_come_back(node: Node, runtime: Runtime) -> None:
    sandboxes = [await runtime.run_pod_sandbox(userns_pod(node, name=f"p{number}")) for number in range(3)]
    firsts = {runtime._state.sandboxes[sandbox].record.first_user_id for sandbox in sandboxes}
    assert len(firsts) == 3
    for sandbox in sandboxes:
        await runtime.stop_pod_sandbox(sandbox)
        await runtime.remove_pod_sandbox(sandbox)
    claimed = os.listdir(userids.DIRECTORY) if os.path.exists(userids.DIRECTORY) else []
    assert not firsts & {int(name) for name in claimed}


async def test_a_tty_and_a_privileged_container_work_inside(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(userns_pod(node))
    tty = await run_to_end(runtime, sandbox, container("sh", "-c", "tty; ls -ln /dev/console", name="tty", tty=True))
    assert "/dev/pts/0" in node.output(tty), node.log(tty)
    security = SecurityContext(privileged=True)
    free = await run_to_end(
        runtime, sandbox, container("sh", "-c", "id -u; echo x > /dev/null", name="free", security=security)
    )
    assert node.output(free) == "0\n", node.log(free)
