from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from runtime_node import SHARED_PID, Node, container, ended, eventually, run_to_end

from minikube_raw.linux import features, pidfd
from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime.cri import (
    ContainerState,
    LinuxContainerResources,
    LinuxContainerUser,
    Mount,
    NamespaceMode,
    NamespaceOption,
    RuntimeServiceError,
    SandboxState,
    SecurityContext,
)
from minikube_raw.runtime.service import Runtime

pytestmark = pytest.mark.root


async def say(node: Node, runtime: Runtime, *command: str, **changes: object) -> str:
    """Runs a command in a pod of its own and returns what it wrote to stdout."""
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(runtime, sandbox, container(*command, **changes))
    return node.output(status)


async def test_standard_input_is_the_null_device_by_its_name_in_the_container(node: Node, runtime: Runtime) -> None:
    assert await say(node, runtime, "readlink", "/proc/self/fd/0") == "/dev/null\n"


async def test_a_container_writes_a_cri_log_and_ends_with_its_exit_code(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(runtime, sandbox, container("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 3, "Error")
    assert {line.split(" ", 1)[1] for line in node.log(status).splitlines()} == {"stdout F out", "stderr F err"}
    assert 0 < status.created_at <= status.started_at <= status.finished_at


async def test_success_is_completed_and_a_signal_is_128_plus_its_number(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    fine = await run_to_end(runtime, sandbox, container("true", name="a"))
    # a PID 1 is not killed by signals from inside, so it is a child's end that the shell reports
    killed = await run_to_end(runtime, sandbox, container("sh", "-c", "sh -c 'kill -9 $$'; exit $?", name="b"))
    assert (fine.exit_code, fine.reason) == (0, "Completed")
    assert (killed.exit_code, killed.reason) == (137, "Error")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param(["nosuch"], 'exec: "nosuch": executable file not found in $PATH', id="not in PATH"),
        pytest.param(["/nosuch"], 'exec: "/nosuch": stat /nosuch: no such file or directory', id="no such file"),
        pytest.param(["/etc/passwd"], 'exec: "/etc/passwd": permission denied', id="not executable"),
        pytest.param(["/etc"], 'exec: "/etc": is a directory', id="directory"),
        pytest.param(["/bin/garbage"], "exec /bin/garbage: exec format error", id="no programme"),
    ],
)
async def test_a_program_that_cannot_run_is_a_start_error(
    node: Node, runtime: Runtime, command: list[str], message: str
) -> None:
    garbage = node.images.images["busybox"][0] / "bin/garbage"
    garbage.write_text("\0\1\2")
    garbage.chmod(0o755)
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container(*command))
    with pytest.raises(RuntimeServiceError) as raised:
        await runtime.start_container(created)
    status = await runtime.container_status(created)
    assert raised.value.reason == "StartError"
    assert str(raised.value).endswith(f"unable to start container process: {message}")
    assert status is not None
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 128, "StartError")
    assert status.message == str(raised.value)


async def test_what_a_process_inside_finds(node: Node, runtime: Runtime) -> None:
    script = "grep -E '^(Sig[BIC]|Cap|NoNew|Groups|Seccomp:)' /proc/self/status; ls -1 /proc/self/fd | wc -l; umask; pwd; hostname"
    node.images.images["busybox"][0].joinpath("bin/pwd").symlink_to("busybox")
    lines = (await say(node, runtime, "sh", "-c", script)).splitlines()
    found = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert found["SigBlk"] == found["SigIgn"] == found["SigCgt"] == "0" * 16
    assert found["CapInh"] == found["CapAmb"] == "0" * 16
    assert found["CapPrm"] == found["CapEff"] == found["CapBnd"] == "00000000a80425fb"
    assert found["Groups"].split() == ["0"]
    assert lines[-4:] == ["4", "0022", "/", "pod"]  # 0, 1, 2 and ls's own


@pytest.mark.parametrize(
    ("image", "security", "expected"),
    [
        pytest.param("", {}, "uid=0(root) gid=0(root) groups=0(root) /root", id="root by default"),
        pytest.param(
            "web", {}, "uid=1000(web) gid=1001(web) groups=1001(web),2000(logs) /home/web", id="a name of the image's"
        ),
        pytest.param("1000:0", {}, "uid=1000(web) gid=0(root) groups=0(root) /home/web", id="uid and gid"),
        pytest.param(
            "",
            {"run_as_user": 1000},
            "uid=1000(web) gid=1001(web) groups=1001(web),2000(logs) /home/web",
            id="runAsUser",
        ),
        pytest.param(
            "web",
            {"run_as_user": 5, "run_as_group": 6, "supplemental_groups": (7,)},
            "uid=5 gid=6 groups=6,7 /",
            id="numbers",
        ),
    ],
)
async def test_users_and_groups_come_from_the_image(
    node: Node, runtime: Runtime, image: str, security: dict[str, object], expected: str
) -> None:
    node.images.images["it"] = (node.images.images["busybox"][0], ImageConfig(user=image))
    said = await say(node, runtime, "sh", "-c", 'echo "$(id) $HOME"', image="it", security=SecurityContext(**security))
    assert said.strip() == expected
    uid, gid, *groups = (int(number) for number in re.findall(r"\b\d+\b", said))
    assert [each.user for each in await runtime.list_containers()] == [LinuxContainerUser(uid, gid, tuple(groups))]


async def test_an_unknown_user_is_a_create_error_that_names_it(node: Node, runtime: Runtime) -> None:
    node.images.images["it"] = (node.images.images["busybox"][0], ImageConfig(user="ghost", cmd=("sh",)))
    with pytest.raises(
        RuntimeServiceError, match="unable to find user ghost: no matching entries in passwd file"
    ) as raised:
        await say(node, runtime, image="it")
    assert raised.value.reason == "CreateContainerError"
    assert await runtime.list_containers() == []  # what could not be made is no container


async def test_capabilities_no_new_privs_read_only_root_and_masks(node: Node, runtime: Runtime) -> None:
    security = SecurityContext(
        drop_capabilities=("ALL",), add_capabilities=("NET_ADMIN",), no_new_privs=True, readonly_rootfs=True
    )
    script = "grep -E '^(CapEff|NoNew)' /proc/self/status; touch /x; cat /proc/keys; echo 1 > /proc/sys/vm/drop_caches"
    sandbox = await runtime.run_pod_sandbox(node.pod())
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, security=security))
    assert node.output(status) == "CapEff:\t0000000000001000\nNoNewPrivs:\t1\n"
    assert node.output(status, "stderr").count("Read-only file system") == 2


async def test_a_privileged_container_has_what_we_have(node: Node, runtime: Runtime) -> None:
    script = "grep CapEff /proc/self/status; test -w /proc/sys/vm/drop_caches && echo writable"
    said = await say(node, runtime, "sh", "-c", script, security=SecurityContext(privileged=True))
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert said == f"CapEff:\t{ours.split()[1]}\nwritable\n"


async def test_volumes_are_mounted_where_they_belong(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from the host\n")
    (tmp_path / "secret").write_text("hidden\n")
    mounts = (
        Mount("/deep/new/place", str(tmp_path / "data")),
        Mount("/etc/secret/key", str(tmp_path / "secret"), readonly=True),
    )
    script = "cat /deep/new/place/file /etc/secret/key; echo back > /deep/new/place/answer; echo x > /etc/secret/key || echo refused"
    assert await say(node, runtime, "sh", "-c", script, mounts=mounts) == "from the host\nhidden\nrefused\n"
    assert (tmp_path / "data/answer").read_text() == "back\n"


async def test_a_link_of_the_image_cannot_lead_a_volume_outside(node: Node, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "victim").mkdir()
    (node.images.images["busybox"][0] / "trap").symlink_to(tmp_path / "victim")
    said = await say(
        node, runtime, "sh", "-c", "touch /trap/here; ls /trap", mounts=(Mount("/trap", str(tmp_path / "data")),)
    )
    assert said == "here\n"
    assert list((tmp_path / "victim").iterdir()) == []
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["here"]


@pytest.mark.parametrize("place", ["/proc", "/proc/self", "/link"])
async def test_nothing_is_mounted_over_proc(node: Node, runtime: Runtime, tmp_path: Path, place: str) -> None:
    link = node.images.images["busybox"][0] / "link"
    link.symlink_to("/proc/tty")
    (tmp_path / "data").mkdir()
    with pytest.raises(RuntimeServiceError, match=r"inside /proc|no such file"):
        await say(node, runtime, "true", mounts=(Mount(place, str(tmp_path / "data")),))


async def test_a_link_in_place_of_proc_stops_the_container(node: Node, runtime: Runtime) -> None:
    (node.images.images["busybox"][0] / "proc").symlink_to("tmp")
    with pytest.raises(RuntimeServiceError, match=r"/proc"):
        await say(node, runtime, "true")


async def test_a_memory_hog_is_oom_killed_with_137(node: Node, runtime: Runtime) -> None:
    limits = LinuxContainerResources(memory_limit_in_bytes=32 << 20)
    sandbox = await runtime.run_pod_sandbox(node.pod())
    hog = container("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", resources=limits)
    status = await run_to_end(runtime, sandbox, hog)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_limits_arrive_in_the_cgroup_that_the_container_sees(node: Node, runtime: Runtime) -> None:
    limits = LinuxContainerResources(cpu_shares=102, cpu_quota=50_000, memory_limit_in_bytes=64 << 20, pids_limit=20)
    sandbox = await runtime.run_pod_sandbox(node.pod())
    created = await runtime.create_container(sandbox, container("sleep", "100", resources=limits))
    await runtime.start_container(created)
    group = manager(runtime._state.containers[created].record.request["cgroup"])
    assert group.stats().memory_limit == 64 << 20
    seen = await runtime.exec_sync(created, ["sh", "-c", "cat /proc/self/cgroup; ls /sys/fs/cgroup"])
    assert all(line.endswith(b":/") or b"name=" in line for line in seen.stdout.splitlines() if b":" in line)


async def test_only_the_usual_devices_can_be_used(node: Node, runtime: Runtime) -> None:
    node.images.images["busybox"][0].joinpath("bin/mknod").symlink_to("busybox")
    script = "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg || echo refused; head -c 0 /dev/zero && echo fine"
    assert await say(node, runtime, "sh", "-c", script) == "refused\nfine\n"


async def test_stop_heeds_the_stop_signal_and_kills_what_ignores_it(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod())
    script = "trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done"
    polite = await runtime.create_container(sandbox, container("sh", "-c", script, name="polite"))
    stubborn = await runtime.create_container(
        sandbox, container("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.05; done", name="stubborn")
    )
    for created in (polite, stubborn):
        await runtime.start_container(created)
        await wait_for_output(node, runtime, created, "ready")
    await runtime.stop_container(polite, 10)
    await runtime.stop_container(stubborn, 0.2)
    await runtime.stop_container(stubborn, 0.2)
    statuses = {status.name: status for status in await runtime.list_containers(sandbox)}
    assert statuses["polite"].exit_code == 7
    assert statuses["stubborn"].exit_code == 137


async def wait_for_output(node: Node, runtime: Runtime, container_id: str, text: str) -> None:
    """Waits until the log has a text: the log file is the only event there is for that."""
    status = await runtime.container_status(container_id)
    assert status is not None
    await eventually(lambda: os.path.exists(status.log_path) and text in node.output(status))


async def test_containers_of_a_pod_share_host_name_memory_and_network_but_not_processes(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod("shared"))
    first = await runtime.create_container(
        sandbox, container("sh", "-c", "echo x > /dev/shm/from-a; sleep 100", name="a")
    )
    await runtime.start_container(first)
    script = "until cat /dev/shm/from-a; do sleep 0.01; done; hostname; readlink /proc/self/ns/net; ps | grep -c sleep"
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, name="b"))
    other = await runtime.exec_sync(first, ["readlink", "/proc/self/ns/net"])
    lines = node.output(status).splitlines()
    assert lines[:2] == ["x", "shared"]
    assert lines[2] == other.stdout.decode().strip() != os.readlink("/proc/self/ns/net")


async def test_a_shared_process_namespace_has_a_pause_process_that_gives_nothing_away(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=SHARED_PID))
    first = await runtime.create_container(sandbox, container("sleep", "1234", name="a"))
    await runtime.start_container(first)
    script = "ps -o pid,comm,args; ls /proc/1/root/ | wc -l; cat /proc/1/environ | wc -c"
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script, name="b"))
    said = node.output(status)
    assert "1 pause" in said
    assert "sleep 1234" in said
    assert said.splitlines()[-2:] == ["0", "0"]


async def test_the_pause_process_ends_with_its_pod(node: Node, runtime: Runtime) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=SHARED_PID))
    (pid,) = manager(f"{runtime._state.sandboxes[sandbox].record.cgroup}/pause").procs()
    pause = os.pidfd_open(pid)

    await runtime.remove_pod_sandbox(sandbox)

    assert pidfd.has_ended(pause, 60)
    os.close(pause)
    await eventually(lambda: not Path(f"/proc/{pid}").exists())  # reaped by the launcher, which inherits it


async def test_a_pod_on_the_nodes_network_has_the_nodes_network_and_name(node: Node, runtime: Runtime) -> None:
    host = NamespaceOption(network=NamespaceMode.NODE, pid=NamespaceMode.NODE, ipc=NamespaceMode.NODE)
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=host))
    script = "for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done"
    status = await run_to_end(runtime, sandbox, container("sh", "-c", script))
    assert node.output(status).split() == [
        os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc", "uts", "pid")
    ]
    assert node.network.calls == []


async def test_without_a_process_namespace_of_its_own_nothing_survives_the_first_process(
    node: Node, runtime: Runtime
) -> None:
    sandbox = await runtime.run_pod_sandbox(node.pod(namespaces=SHARED_PID))
    created = await runtime.create_container(sandbox, container("sh", "-c", "sleep 5555 & exit 0"))
    await runtime.start_container(created)
    await ended(runtime, created)
    assert manager(runtime._state.containers[created].record.request["cgroup"]).wait_empty(5)


async def test_every_verb_may_be_repeated_and_nothing_is_left(node: Node, runtime: Runtime) -> None:
    config = node.pod()
    before = Path("/proc/self/mountinfo").read_text().count("\n")
    sandbox = await runtime.run_pod_sandbox(config)
    assert await runtime.run_pod_sandbox(config) == sandbox
    created = await runtime.create_container(sandbox, container("sleep", "100"))
    assert await runtime.create_container(sandbox, container("sleep", "100")) == created
    await runtime.start_container(created)
    await runtime.start_container(created)
    assert Path("/proc/self/mountinfo").read_text().count("\n") == before + 1  # the pin of the network namespace
    await runtime.stop_pod_sandbox(sandbox)
    await runtime.stop_pod_sandbox(sandbox)
    assert [status.state for status in await runtime.list_pod_sandboxes()] == [SandboxState.NOTREADY]
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.settled()
    assert await runtime.list_pod_sandboxes() == await runtime.list_containers() == []
    assert Path("/proc/self/mountinfo").read_text().count("\n") == before
    assert not manager(f"{node.cgroup}/kubepods/pod{config.uid}").exists()
    left = [
        path for path in (*node.run.rglob("*"), *node.state.rglob("*")) if sandbox in str(path) or created in str(path)
    ]
    assert left == []
    assert [call for call, _ in node.network.calls] == ["ADD", "DEL"]
    assert runtime.warnings == []


async def test_a_network_that_fails_leaves_nothing(node: Node, runtime: Runtime) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no addresses left")

    node.network.add = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeServiceError, match=r"failed to setup network for sandbox .*no addresses left"):
        await runtime.run_pod_sandbox(node.pod())
    await runtime.settled()
    assert list((node.run / "netns").iterdir()) == []
    assert list((node.run / "sandboxes").iterdir()) == []


async def test_sysctls_are_set_in_the_pods_namespaces_only(node: Node, runtime: Runtime) -> None:
    wanted = {"net.ipv4.ip_unprivileged_port_start": "7", "kernel.shm_rmid_forced": "1"}
    sandbox = await runtime.run_pod_sandbox(node.pod(sysctls=wanted))
    paths = [f"/proc/sys/{name.replace('.', '/')}" for name in wanted]
    status = await run_to_end(runtime, sandbox, container("cat", *paths))
    assert node.output(status).split() == ["7", "1"]


@pytest.mark.parametrize("name", ["kernel.core_pattern", "kernel/core_pattern"])
async def test_a_sysctl_of_the_host_is_refused(node: Node, runtime: Runtime, name: str) -> None:
    present = Path("/proc/sys/kernel/core_pattern").read_text()  # were it written, nothing would change
    with pytest.raises(RuntimeServiceError, match="not in a namespace of the pod's own"):
        await runtime.run_pod_sandbox(node.pod(sysctls={name: present}))


async def test_the_trace_has_the_steps_of_everybody_in_one_line_of_time(node: Node, runtime: Runtime) -> None:
    from minikube_raw.runtime import trace

    sandbox = await runtime.run_pod_sandbox(node.pod("traced"))
    created = await runtime.create_container(sandbox, container("sleep", "100"))
    await runtime.start_container(created)
    await runtime.settled()
    found = trace.load(runtime.traces, "default", "traced")
    assert found is not None
    steps = found["steps"]
    assert {step["who"] for step in steps} == {"kubelet", "cni", "keeper", "child"}
    assert {"unshare", "clone", "mount", "pivot_root", "capset", "mkdir"} <= {step["what"] for step in steps}
    assert [step["at_ms"] for step in steps] == sorted(step["at_ms"] for step in steps)
    assert all(step["at_ms"] <= found["start_ms"] for step in steps)


async def test_a_user_namespace_is_refused_where_the_kernel_cannot_mount_everything_with_other_owners(
    node: Node, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIKUBE_RAW_NO_IDMAPPED_MOUNTS", "1")
    features.forget()
    with pytest.raises(RuntimeServiceError, match=r"other owners; Linux 6\.3 can") as refused:
        await runtime.run_pod_sandbox(node.pod(user_namespace=True))
    monkeypatch.undo()
    features.forget()
    assert refused.value.reason == "CreatePodSandboxError"
