"""A container's document as config.json of an OCI bundle."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest

from minikube_raw.linux import capabilities
from minikube_raw.linux.cgroup_mounts import Hierarchies
from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.runtime import bundle, spec
from minikube_raw.runtime.cri import (
    ContainerConfig,
    LinuxContainerResources,
    Mount,
    MountPropagation,
    PodSandboxConfig,
    SecurityContext,
)
from minikube_raw.runtime.users import User

POD = PodSandboxConfig(name="web", namespace="default", uid="u", hostname="web-0")
SHM = "/run/pod/shm"
JOINED = {"pid": "", "network": "/proc/7/ns/net", "ipc": "/proc/7/ns/ipc", "uts": "/proc/7/ns/uts"}


def config(
    *,
    namespaces: dict[str, str] | None = None,
    devices: tuple[bundle.Device, ...] = (),
    propagation: MountPropagation = MountPropagation.PRIVATE,
    volumes: tuple[Mount, ...] = (),
    layers: dict[str, tuple[str, ...]] | None = None,
    resources: LinuxContainerResources | None = None,
    unlimited: tuple[str, ...] = (),
    **security: Any,
) -> Any:
    wanted = ContainerConfig(
        name="c",
        attempt=0,
        image="i",
        command=("sh",),
        security=SecurityContext(**security),
        resources=resources or LinuxContainerResources(),
    )
    mounts = [Mount("/dev/shm", SHM), Mount("/v", "/host/v", readonly=True, propagation=propagation), *volumes]
    document = spec.container_spec(
        POD,
        wanted,
        ImageConfig(),
        mounts=mounts,
        layers=layers,
        hierarchies=Hierarchies({}),
        cgroup="kubepods/c",
        open_files=(1, 2),
    )
    facts = bundle.Facts(
        user=User(1000, 3000, [3000, 5], "/home/web"),
        namespaces=JOINED if namespaces is None else namespaces,
        available=capabilities.mask(["ALL"]) & ~capabilities.mask(["KILL"]),
        shm=SHM,
        oom_score_adj=7,
        devices=devices,
        unlimited=unlimited,
    )
    return bundle.config(document, facts)


def test_namespaces_of_the_pod_are_joined_and_the_containers_own_are_new() -> None:
    assert config()["linux"]["namespaces"] == [
        {"type": "pid"},
        {"type": "network", "path": "/proc/7/ns/net"},
        {"type": "ipc", "path": "/proc/7/ns/ipc"},
        {"type": "uts", "path": "/proc/7/ns/uts"},
        {"type": "mount"},
        {"type": "cgroup"},
    ]


def test_on_the_nodes_network_the_host_name_is_left_alone() -> None:
    on_the_node = config(namespaces={"pid": ""})
    assert [each["type"] for each in on_the_node["linux"]["namespaces"]] == ["pid", "mount", "cgroup"]
    assert "hostname" not in on_the_node


def test_the_process_is_who_init_would_become() -> None:
    process = config()["process"]
    assert process["user"] == {"uid": 1000, "gid": 3000, "additionalGids": [3000, 5], "umask": 0o022}
    assert process["oomScoreAdj"] == 7
    assert process["capabilities"]["bounding"] == process["capabilities"]["effective"]
    assert "CAP_KILL" not in process["capabilities"]["permitted"]  # this host has it not to give
    assert "inheritable" not in process["capabilities"]


def test_the_pods_shared_memory_becomes_a_tmpfs_and_volumes_stay_bind_mounts() -> None:
    by_place = {mount["destination"]: mount for mount in config()["mounts"]}
    assert by_place["/dev/shm"]["type"] == "tmpfs"
    assert by_place["/v"] == {
        "destination": "/v",
        "type": "bind",
        "source": "/host/v",
        "options": ["rbind", "rprivate", "ro"],
    }


def image_mount(*layers: str, sub_path: str = "") -> Any:
    """The bundle's mount for an image volume of these layers."""
    volume = Mount("/image", image="data", sub_path=sub_path, readonly=True)
    made = config(volumes=(volume,), layers={"data": layers})
    return next(each for each in made["mounts"] if each["destination"] == "/image")


def test_an_image_volume_becomes_an_overlay_of_its_layers_or_a_bind_of_the_only_one() -> None:
    options = ["rprivate", "ro", "noexec"]
    assert image_mount("/l/top", "/l/base") == {
        "destination": "/image",
        "type": "overlay",
        "source": "overlay",
        "options": [*options, "lowerdir=/l/top:/l/base"],
    }
    assert image_mount("/l/base") == {
        "destination": "/image",
        "type": "bind",
        "source": "/l/base",
        "options": ["bind", *options],
    }


def test_a_part_of_an_image_volume_has_no_place_in_a_bundle() -> None:
    with pytest.raises(LookupError, match="/image: a subPath of an image volume"):
        image_mount("/l/base", sub_path="etc")


@pytest.mark.parametrize(
    ("propagation", "expected"),
    [
        (MountPropagation.PRIVATE, None),
        (MountPropagation.HOST_TO_CONTAINER, "rslave"),
        (MountPropagation.BIDIRECTIONAL, "rshared"),
    ],
)
def test_a_volume_that_passes_mounts_on_needs_a_root_that_does(
    propagation: MountPropagation, expected: str | None
) -> None:
    assert config(propagation=propagation)["linux"].get("rootfsPropagation") == expected


def test_limits_are_in_ocis_words_but_for_those_that_this_host_has_no_files_for() -> None:
    limits = LinuxContainerResources(
        cpu_shares=51,
        cpuset_cpus="0",
        memory_limit_in_bytes=4096,
        hugepage_limits={"2MB": 0},
        unified={"memory.high": "2048"},
    )
    resources = config(resources=limits)["linux"]["resources"]
    assert (resources["cpu"], resources["memory"]) == (
        {"shares": 51, "period": 100_000, "cpus": "0"},
        {"limit": 4096, "swap": 4096},
    )
    assert resources["hugepageLimits"] == [{"pageSize": "2MB", "limit": 0}]
    assert resources["unified"] == {"memory.high": "2048"}
    assert "unified" not in config(resources=limits, unlimited=("unified",))["linux"]["resources"]


def test_the_cgroup_lies_beside_the_containers_own() -> None:
    assert config()["linux"]["cgroupsPath"] == "/kubepods/c-bundle"


@pytest.mark.parametrize(("privileged", "first"), [(False, False), (True, True)])
def test_devices_are_denied_first_unless_privileged(privileged: bool, first: bool) -> None:
    rules = config(privileged=privileged)["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": first, "access": "rwm"}
    assert len(rules) == (1 if privileged else 11)


def test_a_device_of_the_host_is_described_by_its_numbers() -> None:
    found = config(privileged=True, devices=(("net/tun", stat.S_IFCHR | 0o666, os.makedev(10, 200)),))
    assert found["linux"]["devices"] == [
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666, "uid": 0, "gid": 0}
    ]
