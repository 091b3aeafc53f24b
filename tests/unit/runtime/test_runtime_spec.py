from __future__ import annotations

import msgspec
import pytest

from minikube_raw.linux.cgroup_mounts import Hierarchies
from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime import podfiles, spec
from minikube_raw.runtime.cri import (
    ContainerConfig,
    DNSConfig,
    LinuxContainerResources,
    Mount,
    MountPropagation,
    NamespaceMode,
    NamespaceOption,
    PodSandboxConfig,
    RuntimeServiceError,
    SecurityContext,
)

POD = PodSandboxConfig(name="web", namespace="default", uid="u", hostname="web-0")
V1 = Hierarchies({"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "memory": "/c/memory"}, "/c/unified")


def config(**changes: object) -> ContainerConfig:
    return ContainerConfig(name="c", attempt=0, image="i", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        pytest.param((), (), ["entry", "e1", "cmd"], id="neither: the image's"),
        pytest.param((), ("a",), ["entry", "e1", "a"], id="args replace CMD"),
        pytest.param(("c",), (), ["c"], id="a command replaces both"),
        pytest.param(("c",), ("a",), ["c", "a"], id="both"),
    ],
)
def test_command_and_args_merge_as_kubernetes_documents(
    command: tuple[str, ...], args: tuple[str, ...], expected: list[str]
) -> None:
    image = ImageConfig(entrypoint=("entry", "e1"), cmd=("cmd",))
    assert spec.arguments(config(command=command, args=args), image) == expected


def test_nothing_to_run_is_a_create_error() -> None:
    with pytest.raises(RuntimeServiceError, match="no command specified") as raised:
        spec.arguments(config(), ImageConfig())
    assert raised.value.reason == "CreateContainerError"


def test_the_last_of_a_variable_counts_at_the_place_of_the_first() -> None:
    image = ImageConfig(env=("PATH=/image", "A=1", "broken"))
    pairs = spec.environment(POD, config(envs=(("B", "x=y"), ("A", "2"), ("A", "3")), tty=True), image)
    assert pairs == ["PATH=/image", "HOSTNAME=web-0", "TERM=xterm", "A=3", "B=x=y"]


def test_an_unknown_capability_is_a_create_error() -> None:
    wanted = config(command=("c",), security=SecurityContext(add_capabilities=("FLY",)))
    with pytest.raises(RuntimeServiceError, match="FLY"):
        spec.process_spec(POD, wanted, ImageConfig(), (1024, 4096))


def document(wanted: ContainerConfig, mounts: list[Mount] | None = None, hierarchies: Hierarchies = V1) -> spec.Spec:
    return spec.container_spec(
        POD,
        wanted,
        ImageConfig(cmd=("x",)),
        mounts=mounts or [],
        hierarchies=hierarchies,
        cgroup="n/p/c",
        open_files=(1, 2),
    )


def test_volumes_come_after_the_systems_mounts_and_after_their_parents() -> None:
    mounts = [
        Mount("/data/deep/er", "/h/1"),
        Mount("/data", "/h/2", readonly=True),
        Mount("/other", "/h/3", propagation=MountPropagation.BIDIRECTIONAL),
    ]
    listed = document(config(), mounts)["mounts"]
    assert [entry["destination"] for entry in listed[:6]] == [
        *("/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup")
    ]
    assert [(entry["destination"], entry["options"]) for entry in listed[6:]] == [
        ("/data", ["rbind", "rprivate", "ro"]),
        ("/other", ["rbind", "rshared"]),
        ("/data/deep/er", ["rbind", "rprivate"]),
    ]


@pytest.mark.parametrize(
    ("security", "masked", "sys_readonly"),
    [
        pytest.param(SecurityContext(), True, True, id="usual"),
        pytest.param(SecurityContext(unmasked_proc=True), False, True, id="procMount: Unmasked"),
        pytest.param(SecurityContext(privileged=True), False, False, id="privileged"),
    ],
)
def test_masks_and_read_only_sys_depend_on_the_security_context(
    security: SecurityContext, masked: bool, sys_readonly: bool
) -> None:
    made = document(config(security=security))
    assert bool(made["linux"]["maskedPaths"]) == bool(made["linux"]["readonlyPaths"]) == masked
    options = {entry["destination"]: entry["options"] for entry in made["mounts"]}
    assert ("ro" in options["/sys"], "ro" in options["/sys/fs/cgroup"]) == (sys_readonly, sys_readonly)


def test_v1_controllers_are_mounted_by_hierarchy_and_v2_as_one() -> None:
    assert spec.cgroup_controllers(V1) == [("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory")]
    assert spec.cgroup_controllers(Hierarchies({}, "/c", frozenset({"memory"}))) == []


def test_only_limits_that_are_given_are_passed_on() -> None:
    assert spec.limits(LinuxContainerResources()) == {}
    given = LinuxContainerResources(cpu_shares=2, cpu_quota=5000, memory_limit_in_bytes=1, pids_limit=3)
    assert spec.limits(given) == {
        "cpu_shares": 2, "cpu_quota": 5000, "cpu_period": 100_000, "memory_limit": 1, "pids_limit": 3
    }  # fmt: skip


def test_hosts_and_resolv_conf_read_as_the_kubelet_writes_them() -> None:
    pod = PodSandboxConfig(
        name="p", namespace="n", uid="u", hostname="p", hosts=(("10.0.0.9", ("db", "db.example")),),
        dns=DNSConfig(servers=("10.96.0.10",), searches=("n.svc.cluster.local", "cluster.local"), options=("ndots:5",)),
    )  # fmt: skip
    text = podfiles.hosts(pod, ("10.244.0.7",))
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert text.endswith("10.244.0.7\tp\n\n# Entries added by HostAliases.\n10.0.0.9\tdb\tdb.example\n")
    assert podfiles.resolv_conf(pod.dns) == (
        "search n.svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )


def test_a_pod_in_a_subdomain_finds_its_qualified_name_first_in_hosts() -> None:
    pod = msgspec.structs.replace(POD, hostname="hh", qualified_name="hh.ss.ns.svc.cluster.local")

    assert podfiles.hosts(pod, ("10.244.0.7",)).endswith("\n10.244.0.7\thh.ss.ns.svc.cluster.local\thh\n")


def test_a_pod_in_the_nodes_network_has_the_nodes_hosts_and_its_own_aliases() -> None:
    in_node = NamespaceOption(network=NamespaceMode.NODE)
    pod = msgspec.structs.replace(POD, namespaces=in_node, hosts=(("192.0.2.1", ("a", "b")),))

    assert podfiles.hosts(pod, ("10.0.0.1",), "127.0.0.1 localhost\n") == (
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
        "\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n"
    )


def test_a_given_mount_takes_the_place_of_the_pods_own_file() -> None:
    given = [Mount("/etc/hosts", "/kubelet/hosts")]
    made = podfiles.mounts("/run/s", POD, "/run/s/shm", given)
    assert [(mount.container_path, mount.host_path) for mount in made] == [
        ("/etc/hostname", "/run/s/hostname"),
        ("/etc/resolv.conf", "/run/s/resolv.conf"),
        ("/dev/shm", "/run/s/shm"),
        ("/etc/hosts", "/kubelet/hosts"),
    ]
    shared = PodSandboxConfig(name="p", namespace="n", uid="u", namespaces=NamespaceOption(ipc=NamespaceMode.NODE))
    assert podfiles.mounts("/run/s", shared, "/run/s/shm", [])[-1].host_path == "/dev/shm"
