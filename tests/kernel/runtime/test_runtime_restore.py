"""Containers that are made of a checkpoint: by a CRIU that runs on this kernel; what is refused before it is asked needs none."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tarfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from runtime_node import SHARED_PID, Node, container, ended, eventually, kill, kill_keeper

from minikube_raw.linux import capabilities, namespaces
from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime.cri import (
    ContainerConfig,
    ContainerState,
    LinuxContainerResources,
    Mount,
    ProfileType,
    RuntimeServiceError,
    SecurityContext,
    SecurityProfile,
)
from minikube_raw.runtime.service import Runtime
from tests.criu import needs_criu

pytestmark = pytest.mark.root
COUNT = (
    "rm /etc/group; i=0; until [ -e /tmp/end ]; do i=$((i+1)); echo $i; echo $i >/tmp/last; sleep 0.02; done; exit 7"
)


async def started(node: Node, runtime: Runtime, script: str = COUNT, **changes: Any) -> str:
    """A container of a new pod that has written something."""
    sandbox = await runtime.run_pod_sandbox(node.pod(**changes.pop("pod", {})))
    created = await runtime.create_container(sandbox, container("sh", "-c", script, **changes))
    await runtime.start_container(created)
    await has_written(runtime, created)
    return created


async def has_written(runtime: Runtime, created: str) -> None:
    log = Path(runtime._state.containers[created].log_path)
    await eventually(lambda: log.exists() and log.stat().st_size > 100)


async def saved(node: Node, runtime: Runtime, created: str, place: Path) -> str:
    """A checkpoint of a container as an image: its name."""
    await runtime.checkpoint_container(created, str(place / "checkpoint.tar"))
    with tarfile.open(place / "checkpoint.tar") as archive:
        archive.extractall(place / "checkpoint")
    return known(node, place / "checkpoint")


def known(node: Node, directory: Path) -> str:
    node.images.images["saved"] = (directory, ImageConfig())
    node.images.checkpoints["saved"] = "main"
    return "saved"


async def restored(
    node: Node, runtime: Runtime, image: str, *, pod: dict[str, Any] | None = None, **changes: Any
) -> str:
    sandbox = await runtime.run_pod_sandbox(node.pod("other", **(pod or {})))
    created = await runtime.create_container(sandbox, container("sh", image=image, **changes))
    await runtime.start_container(created)
    return created


async def output(node: Node, runtime: Runtime, created: str) -> list[str]:
    status = await runtime.container_status(created)
    assert status is not None
    return node.output(status).splitlines()


@needs_criu
async def test_a_counter_goes_on_where_it_was_and_its_log_and_its_exit_code_arrive(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    original = await started(node, runtime)
    again = await restored(node, runtime, await saved(node, runtime, original, tmp_path))
    await has_written(runtime, again)
    found = await runtime.exec_sync(again, ["sh", "-c", "touch /tmp/end; ls /etc; hostname"])
    assert "group" not in found.stdout.decode().split()
    assert (await ended(runtime, again)).exit_code == 7
    numbers = list(map(int, await output(node, runtime, again)))
    assert numbers[0] > 2
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    status = await runtime.container_status(original)
    assert status is not None
    assert status.state is ContainerState.RUNNING


@needs_criu
async def test_it_is_in_the_new_pods_namespaces_and_cgroup_with_its_limits(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    image = await saved(node, runtime, await started(node, runtime), tmp_path)
    limits = LinuxContainerResources(memory_limit_in_bytes=64 << 20, oom_score_adj=1000)
    again = await restored(node, runtime, image, resources=limits)
    status, record = await runtime.container_status(again), runtime._state.containers[again].record
    assert status is not None
    assert manager(record.request["cgroup"]).stats().memory_limit == 64 << 20
    assert set(manager(record.request["cgroup"]).procs()) >= {status.pid}
    assert Path(f"/proc/{status.pid}/oom_score_adj").read_text() == "1000\n"
    inside = await runtime.exec_sync(again, ["readlink", "/proc/self/ns/net"])
    assert inside.stdout.decode().strip() == os.readlink(f"/proc/{status.pid}/ns/net")
    uts = namespaces.open_namespace("uts", status.pid)
    assert namespaces.in_namespace(uts, socket.gethostname) == "other"
    os.close(uts)


@needs_criu
async def test_volumes_are_the_new_pods_and_one_that_may_not_be_written_to_is_not(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    for name in ("old", "new", "image"):
        (tmp_path / name).mkdir()
    node.images.images["content"] = (tmp_path / "image", ImageConfig())
    (node.images.images["busybox"][0] / "run").mkdir()
    (node.images.images["busybox"][0] / "linked").symlink_to("run")
    script = "until [ -e /linked/data/end ]; do echo x; sleep 0.02; done; echo y >/linked/data/mark"
    seen = Mount("/content", image="content")
    original = await started(node, runtime, script, mounts=(Mount("/linked/data", str(tmp_path / "old")), seen))
    image = await saved(node, runtime, original, tmp_path)
    volume = str(tmp_path / "new")
    again = await restored(node, runtime, image, mounts=(Mount("/linked/data", volume), seen))
    (tmp_path / "new/end").touch()
    assert (await ended(runtime, again)).exit_code == 0
    assert (tmp_path / "new/mark").read_text() == "y\n"
    readonly = Mount("/linked/data", volume, readonly=True)
    with pytest.raises(RuntimeServiceError, match="/run/data could be written to in the restored container"):
        await restored(node, runtime, image, mounts=(readonly, seen))


@needs_criu
@pytest.mark.parametrize(
    "user",
    [
        pytest.param(0, id="root"),
        pytest.param(
            1000,
            id="another",
            marks=pytest.mark.skipif(
                "CAP_SYS_RESOURCE" not in capabilities.names(capabilities.available()),
                reason="without CAP_SYS_RESOURCE CRIU may not look at the limits of another user's process",
            ),
        ),
    ],
)
async def test_a_container_with_a_read_only_root_writes_to_its_output_as_the_user_it_was(
    node: Node, runtime: Runtime, tmp_path: Path, user: int
) -> None:
    security = SecurityContext(run_as_user=user, readonly_rootfs=True, no_new_privs=True)
    script = "until [ -e /data/end ]; do echo x >/dev/stdout || exit 4; sleep 0.02; done; touch /no || exit 3"
    (tmp_path / "volume").mkdir()
    changes: dict[str, Any] = {"security": security, "mounts": (Mount("/data", str(tmp_path / "volume")),)}
    image = await saved(node, runtime, await started(node, runtime, script, **changes), tmp_path)
    again = await restored(node, runtime, image, **changes)
    await has_written(runtime, again)
    (tmp_path / "volume/end").touch()
    status = await ended(runtime, again)
    assert (status.exit_code, status.user is not None and status.user.uid) == (3, user)


@needs_criu
async def test_a_keeper_that_is_killed_after_it_loses_no_line_of_it(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    again = await restored(node, runtime, await saved(node, runtime, await started(node, runtime), tmp_path))
    await has_written(runtime, again)
    before = len(await output(node, runtime, again))
    await kill_keeper(runtime, runtime._state.containers[again].record.sandbox_id)
    log = Path(runtime._state.containers[again].log_path)
    size = log.stat().st_size
    await eventually(lambda: log.stat().st_size > size + 200)
    await runtime.exec_sync(again, ["touch", "/tmp/end"])
    await ended(runtime, again)
    numbers = list(map(int, await output(node, runtime, again)))
    assert len(numbers) > before
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@needs_criu
async def test_listening_sockets_come_back_and_connections_come_back_closed(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    serve = "while :; do nc -l -p 8080 -e sleep 1000; done & while :; do nc -l -p 8081 -e echo hello; done"
    connect = "until nc 127.0.0.1 8080 -e cat 2>/dev/null; do :; done; echo closed"
    script = f"({serve}) & ({connect}) & while :; do echo x; sleep 0.02; done"
    original = await started(node, runtime, script)
    await eventually(lambda: connections(runtime, original) == 1)
    again = await restored(node, runtime, await saved(node, runtime, original, tmp_path))
    log = Path(runtime._state.containers[again].log_path)
    await eventually(lambda: log.exists() and "closed" in log.read_text())
    said = await runtime.exec_sync(again, ["nc", "127.0.0.1", "8081"])
    assert said.stdout == b"hello\n"
    assert "closed" not in await output(node, runtime, original)


def connections(runtime: Runtime, created: str) -> int:
    """Ends of connections that a container's network has by IPv4: those who connect, since nc listens by IPv6."""
    identity = runtime._state.containers[created].identity
    assert identity is not None
    return sum(line.split()[3] == "01" for line in Path(f"/proc/{identity.pid}/net/tcp").read_text().splitlines()[1:])


@needs_criu
async def test_a_restored_container_can_be_checkpointed_and_restored_again(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    first = await restored(node, runtime, await saved(node, runtime, await started(node, runtime), tmp_path))
    await has_written(runtime, first)
    image = await saved(node, runtime, first, tmp_path / "second")
    config = json.loads((tmp_path / "second/checkpoint/config.dump").read_text())
    assert (config["rootfsImageRef"], config["restored"]) == ("busybox", True)
    second = await restored(node, runtime, image)
    await has_written(runtime, second)
    assert int((await output(node, runtime, second))[0]) > int((await output(node, runtime, first))[0])


@needs_criu
async def test_a_directory_that_was_made_anew_does_not_show_what_was_in_the_old_one(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    (node.images.images["busybox"][0] / "old").mkdir()
    (node.images.images["busybox"][0] / "old/a").touch()
    (node.images.images["busybox"][0] / "old/b").touch()
    script = "busybox rm -r /old; mkdir /old; touch /old/b; while :; do echo x; sleep 0.02; done"
    again = await restored(node, runtime, await saved(node, runtime, await started(node, runtime, script), tmp_path))
    assert (await runtime.exec_sync(again, ["ls", "/old"])).stdout == b"b\n"


@needs_criu
async def test_processes_with_more_rights_than_the_pod_asks_for_do_not_run(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    original = await started(node, runtime, security=SecurityContext(add_capabilities=("SYS_PTRACE",)))
    image = await saved(node, runtime, original, tmp_path)
    with pytest.raises(RuntimeServiceError, match=r"capabilities that the pod does not ask for: CAP_SYS_PTRACE$"):
        await restored(node, runtime, image)
    (again,) = set(runtime._state.containers) - {original}
    assert manager(runtime._state.containers[again].record.request["cgroup"]).procs() == []
    status = await runtime.container_status(again)
    assert status is not None
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 128, "StartError")


@needs_criu
async def test_a_file_system_that_no_container_has_is_refused(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    admin = SecurityContext(add_capabilities=("SYS_ADMIN",), seccomp=SecurityProfile(ProfileType.UNCONFINED))
    script = f"mount -t tmpfs tmpfs /mnt; {COUNT}"
    (node.images.images["busybox"][0] / "mnt").mkdir()
    image = await saved(node, runtime, await started(node, runtime, script, security=admin), tmp_path)
    with pytest.raises(RuntimeServiceError, match="has tmpfs at /mnt, where a container has nothing"):
        await restored(node, runtime, image, security=admin)


def archive(directory: Path, **config: Any) -> Path:
    """What is in an archive, but for any process."""
    (directory / "checkpoint").mkdir(parents=True)
    mounts = [{"destination": place, "type": "bind"} for place in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")]
    documents = {"config.dump": {"rootfsImageRef": "busybox", **config}, "spec.dump": {"mounts": mounts}}
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document))
    return directory


async def refused(
    node: Node, runtime: Runtime, match: str, *, pod: dict[str, Any] | None = None, **changes: Any
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(**(pod or {})))
    config: ContainerConfig = container("sh", image="saved", **changes)
    with pytest.raises(RuntimeServiceError, match=match) as error:
        await runtime.create_container(sandbox, config)
    assert error.value.reason == "CreateContainerError"
    assert node.images.list() == []


@pytest.fixture
def criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH has as criu what restores nothing, and says why in its log."""
    program = tmp_path / "bin/criu"
    program.parent.mkdir()
    said = "(00.1)  1: Error (criu/a.c:1): no such luck\n(00.2) Error (criu/util.c:1): RLIMIT_NOFILE for self: no"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Version: 4.0" || echo "{said}" >restore.log; exit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.usefixtures("criu")
async def test_a_restore_that_fails_says_what_criu_said_and_leaves_no_process(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    known(node, archive(tmp_path / "x"))
    with pytest.raises(RuntimeServiceError, match=r"criu restore failed: no such luck$") as error:
        await restored(node, runtime, "saved")
    assert error.value.reason == "StartError"
    (again,) = runtime._state.containers
    assert manager(runtime._state.containers[again].record.request["cgroup"]).procs() == []
    await runtime.remove_container(again)


@pytest.mark.usefixtures("criu")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"tty": True}, "it would have a terminal", id="terminal"),
        pytest.param({"mounts": (Mount("/data", "/tmp"),)}, "must mount none at /data", id="a volume too many"),
        pytest.param({"pod": {"namespaces": SHARED_PID}}, "a process namespace of their own", id="shared processes"),
        pytest.param({"pod": {"user_namespace": True}}, "a user namespace", id="user namespace"),
    ],
)
async def test_a_pod_that_does_not_fit_the_checkpoint_is_told_why(
    node: Node, runtime: Runtime, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    known(node, archive(tmp_path / "x"))
    await refused(node, runtime, f"checkpoint of container main: .*{why}", **changes)


@pytest.mark.usefixtures("criu")
async def test_another_oci_runtime_is_not_asked_and_our_own_by_runcs_name_is(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    known(node, archive(tmp_path / "x"))
    with pytest.raises(RuntimeServiceError, match="no such luck"):
        await restored(node, runtime, "saved", pod={"runtime_handler": "runc"})
    node.handlers["crun"] = ["/usr/bin/crun"]
    fresh = node.make_runtime()
    sandbox = await fresh.run_pod_sandbox(node.pod(runtime_handler="crun"))
    with pytest.raises(RuntimeServiceError, match="handler crun restores no checkpoints: use another RuntimeClass"):
        await fresh.create_container(sandbox, container("sh", image="saved"))
    await fresh.close()


@needs_criu
@pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed")
async def test_what_runc_made_goes_on_as_ours(node: Node, tmp_path: Path) -> None:
    node.handlers["other"] = [str(shutil.which("runc"))]
    runtime = node.make_runtime()
    await runtime.start()
    try:
        original = await started(node, runtime, pod={"runtime_handler": "other"})
        again = await restored(node, runtime, await saved(node, runtime, original, tmp_path))
        await has_written(runtime, again)
        assert int((await output(node, runtime, again))[0]) > 2
    finally:
        await runtime.close()


async def test_a_keeper_of_an_older_release_would_execute_instead_and_is_not_asked(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    known(node, archive(tmp_path / "x"))
    sandbox = await runtime.run_pod_sandbox(node.pod())
    runtime._state.sandboxes[sandbox].version = 2
    with pytest.raises(RuntimeServiceError, match="of an older version, which restores no checkpoints"):
        await runtime.create_container(sandbox, container("sh", image="saved"))


@pytest.mark.usefixtures("criu")
async def test_an_archive_that_is_none_or_leads_out_of_itself_is_refused(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    known(node, tmp_path / "empty")
    await refused(node, runtime, r"it has no config\.dump")
    known(node, archive(tmp_path / "other", rootfsImageRef="sha256:1", rootfsImageName="nginx"))
    await refused(node, runtime, "image nginx, which the container was made of, is not on this node: load it first")
    known(node, archive(tmp_path / "links"))
    (tmp_path / "links/checkpoint/pages-1.img").symlink_to("/dev/zero")
    await refused(node, runtime, r"checkpoint/pages-1\.img is no regular file")
    known(node, archive(tmp_path / "volume"))
    mounts = [{"destination": "/data", "type": "bind"}]
    (tmp_path / "volume/spec.dump").write_text(json.dumps({"mounts": mounts}))
    await refused(node, runtime, "has to mount a volume at /data and must mount none at /etc/hostname")
    (tmp_path / "volume/spec.dump").unlink()
    (tmp_path / "volume/spec.dump").symlink_to("/etc/shadow")
    await refused(node, runtime, r"spec\.dump cannot be read")


@pytest.mark.usefixtures("criu")
async def test_what_a_keeper_that_was_killed_left_of_a_restore_ends_before_the_next_try(
    node: Node, runtime: Runtime, tmp_path: Path
) -> None:
    known(node, archive(tmp_path / "x"))
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sh", image="saved"))
    group = manager(runtime._state.containers[created].record.request["cgroup"])
    (tmp_path / "bin/criu").write_text("#!/bin/sh\nsleep 1000 & sleep 1000\n")
    starting = asyncio.create_task(runtime.start_container(created))
    await eventually(lambda: len(group.procs()) == 3 if group.exists() else False)
    left = group.procs()
    kill(psutil.Process(left[0]).ppid())
    with pytest.raises(RuntimeServiceError):
        await starting
    places = " ".join(f"/proc/{pid}" for pid in left)
    (tmp_path / "bin/criu").write_text(f"#!/bin/sh\nls -d {places} >{tmp_path}/alive 2>/dev/null\nexit 1\n")
    with pytest.raises(RuntimeServiceError, match="criu restore failed"):
        await runtime.start_container(created)
    assert (tmp_path / "alive").read_text() == ""
