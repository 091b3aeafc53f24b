"""Owners, modes and sizes of volumes, as a kubelet of Kubernetes 1.36 was seen to make them."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minikube_raw.api.core import ConfigMap, Secret
from minikube_raw.api.storage import LocalVolumeSource, PersistentVolume, PersistentVolumeSpec
from minikube_raw.api.volumes import ServiceAccountTokenProjection
from minikube_raw.kubelet import downward, env, persistent, projection
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.kubelet.pods import from_manifest
from minikube_raw.kubelet.volumes import VolumeManager
from minikube_raw.linux import features, mounts, namespaces, removal

pytestmark = pytest.mark.root

MEMORY = 64 << 20
TOKEN = {"path": "token", "audience": "aud", "expirationSeconds": 3600}
OBJECTS = env.Referred(
    {"cm": ConfigMap(data={"a.txt": "one\n"})}, {"sec": Secret(data={"user": "dQ==", "pass": "cA=="})}
)
VOLUMES: dict[str, dict[str, Any]] = {
    "cm": {"configMap": {"name": "cm"}},
    "cmi": {
        "configMap": {
            "name": "cm",
            "defaultMode": 0o440,
            "items": [{"key": "a.txt", "path": "x/y/z.txt", "mode": 0o600}],
        }
    },
    "opt": {"configMap": {"name": "nosuch", "optional": True}},
    "sec": {"secret": {"secretName": "sec", "defaultMode": 0o400}},
    "proj": {
        "projected": {
            "sources": [
                {"serviceAccountToken": TOKEN},
                {"secret": {"name": "sec", "items": [{"key": "user", "path": "my/user"}]}},
                {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ]
        }
    },
    "ed": {"emptyDir": {}},
    "mem": {"emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
    "mem2": {"emptyDir": {"medium": "Memory"}},
}


@pytest.fixture(scope="module", autouse=True)
def own_mounts() -> Any:
    before = namespaces.open_namespace("mnt")
    namespaces.unshare(namespaces.CLONE_FS | namespaces.CLONE_NEWNS)
    mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
    yield
    namespaces.setns(before, namespaces.CLONE_NEWNS)
    os.close(before)


def wish(volumes: dict[str, dict[str, Any]], **spec: Any) -> Any:
    places = [{"name": name, "mountPath": f"/m/{name}"} for name in volumes]
    containers = [{"name": "c", "image": "i", "volumeMounts": places, "resources": spec.pop("resources", {})}]
    wanted = [{"name": name, **source} for name, source in volumes.items()]
    meta = {"name": "p", "namespace": "ns", "uid": spec.pop("uid", "u1")}
    return from_manifest({"metadata": meta, "spec": {"containers": containers, "volumes": wanted, **spec}})


@pytest.fixture
def made(tmp_path: Path) -> Any:
    manager = VolumeManager(tmp_path / "pods", tmp_path / "memory")

    def make(volumes: dict[str, dict[str, Any]], **spec: Any) -> Callable[[str], Path]:
        tokens = {ServiceAccountTokenProjection("token", "aud", 3600): "eyJ"}
        sources = projection.Sources(OBJECTS, downward.Addresses("h"), {"memory": f"{MEMORY}"}, tokens=tokens)
        pod = wish(volumes, **spec)
        manager.set_up(pod, sources)
        paths = {mount.container_path: mount.host_path for mount in manager.mounts(pod, pod.spec.containers[0], {})}
        return lambda name: Path(paths[f"/m/{name}"])

    yield make
    manager.tear_down("u1")
    mounts.umount_all(str(tmp_path / "memory"))


def look(path: Path) -> str:
    found = path.lstat()
    return f"{stat.filemode(found.st_mode)} {found.st_uid} {found.st_gid}"


def test_without_a_group_everything_is_roots(made: Any) -> None:
    volume = made(VOLUMES)

    assert {name: look(volume(name)) for name in VOLUMES} == {
        "cm": "drwxrwxrwx 0 0",
        "cmi": "drwxrwxrwx 0 0",
        "opt": "drwxrwxrwx 0 0",
        "sec": "drwxrwxrwt 0 0",
        "proj": "drwxrwxrwt 0 0",
        "ed": "drwxrwxrwx 0 0",
        "mem": "drwxrwxrwt 0 0",
        "mem2": "drwxrwxrwt 0 0",
    }
    assert look(volume("cm") / "..data/a.txt") == "-rw-r--r-- 0 0"
    assert look((volume("cm") / "..data").resolve()) == "drwxr-xr-x 0 0"
    assert look(volume("cmi") / "x/y/z.txt") == "-rw------- 0 0"
    assert look(volume("sec") / "..data/pass") == "-r-------- 0 0"
    assert look(volume("proj") / "..data/token") == "-rw-r--r-- 0 0"
    assert os.listdir(volume("opt") / "..data/") == []


def test_pods_that_come_at_once_share_one_tmpfs(tmp_path: Path) -> None:
    manager, together = VolumeManager(tmp_path / "pods", tmp_path / "memory"), threading.Barrier(16)
    sources = projection.Sources(OBJECTS, downward.Addresses("h"), {"memory": f"{MEMORY}"})

    def set_up(uid: str) -> Path:
        pod = wish({"sec": VOLUMES["sec"]}, uid=uid)
        together.wait(30)
        manager.set_up(pod, sources)
        return Path(manager.mounts(pod, pod.spec.containers[0], {})[0].host_path)

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(set_up, (f"u{number}" for number in range(16))))
    try:
        assert mounts.mount_points_below(str(tmp_path / "memory")) == [str(tmp_path / "memory")]
        assert [(path / "pass").read_text() for path in made] == ["p"] * 16
    finally:
        for point in mounts.mount_points_below(str(tmp_path / "memory")):
            mounts.umount_all(point)


def test_fs_group_owns_files_and_links_and_the_token_is_its_users(made: Any) -> None:
    volume = made(VOLUMES, securityContext={"runAsUser": 1000, "fsGroup": 2000})

    assert {name: look(volume(name)) for name in VOLUMES} == {
        "cm": "drwxrwsrwx 0 2000",
        "cmi": "drwxrwsrwx 0 2000",
        "opt": "drwxrwsrwx 0 2000",
        "sec": "drwxrwsrwt 0 2000",
        "proj": "drwxrwsrwt 0 2000",
        "ed": "drwxrwsrwx 0 2000",
        "mem": "drwxrwsrwt 0 2000",
        "mem2": "drwxrwsrwt 0 2000",
    }
    assert look(volume("cm") / "a.txt") == "lrwxrwxrwx 0 2000"
    assert look(volume("cm") / "..data") == "lrwxrwxrwx 0 2000"
    assert look((volume("cm") / "..data").resolve()) == "drwxr-sr-x 0 2000"
    assert look(volume("cm") / "..data/a.txt") == "-rw-r--r-- 0 2000"
    assert look(volume("cmi") / "..data/x/y") == "drwxr-sr-x 0 2000"
    assert look(volume("cmi") / "x/y/z.txt") == "-rw-r----- 0 2000"
    assert look(volume("sec") / "..data/pass") == "-r--r----- 0 2000"
    assert look(volume("proj") / "token") == "lrwxrwxrwx 1000 2000"
    assert look(volume("proj") / "..data/token") == "-rw-r----- 1000 2000"
    assert look(volume("proj") / "..data/ns") == "-rw-r--r-- 0 2000"


def test_a_token_is_only_its_users_when_there_is_one(made: Any) -> None:
    volume = made({"proj": VOLUMES["proj"]}, securityContext={"runAsUser": 1000})

    assert look(volume("proj") / "..data/token") == "-rw------- 1000 0"


def kind_of(path: Path) -> tuple[str, int, bool]:
    """File system, size and whether swap is kept out, of the mount that a path lies on."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    best = max((line for line in lines if f"{path}/".startswith(line[4].rstrip("/") + "/")), key=lambda x: len(x[4]))
    found = os.statvfs(path)
    return best[best.index("-") + 1], found.f_blocks * found.f_frsize, "noswap" in best[-1]


def test_a_tmpfs_is_as_large_as_the_least_of_its_limits_and_never_swapped(made: Any) -> None:
    noswap = features.tmpfs_noswap()
    volume = made(VOLUMES)
    assert kind_of(volume("mem")) == ("tmpfs", 4 << 20, noswap)
    assert kind_of(volume("mem2")) == ("tmpfs", MEMORY, noswap)
    assert kind_of(volume("sec"))[::2] == ("tmpfs", noswap)
    assert kind_of(volume("cm"))[0] != "tmpfs" or kind_of(volume("cm")) == kind_of(volume("ed"))


def test_a_pods_memory_limit_bounds_its_tmpfs(made: Any) -> None:
    volume = made({"mem2": VOLUMES["mem2"]}, resources={"limits": {"memory": "8Mi"}})
    assert kind_of(volume("mem2"))[:2] == ("tmpfs", 8 << 20)


@pytest.mark.parametrize(
    ("medium", "why"),
    [
        ("HugePages", "medium HugePages: hugePages storage requested, but there is no resource request for huge pages"),
        ("Floppy", 'unknown storage medium "Floppy"'),
    ],
)
def test_an_empty_dir_of_no_known_medium_says_so(made: Any, medium: str, why: str) -> None:
    with pytest.raises(MountError, match=f'volume "ed" : {why}'):
        made({"ed": {"emptyDir": {"medium": medium}}})


@pytest.mark.parametrize(("policy", "again"), [("Always", True), ("OnRootMismatch", False)])
def test_a_claims_volume_is_given_to_the_group_each_time_or_only_when_its_root_is_not(
    tmp_path: Path, policy: str, again: bool
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/early").touch(mode=0o600)
    volume = PersistentVolume(spec=PersistentVolumeSpec(local=LocalVolumeSource(path=str(tmp_path / "data"))))
    security = {"fsGroup": 2000, "fsGroupChangePolicy": policy}
    pod = wish({"v": {"persistentVolumeClaim": {"claimName": "c"}}}, securityContext=security)
    persistent.set_up(volume, pod)
    (tmp_path / "data/late").touch(mode=0o600)
    os.chown(tmp_path / "data/late", 0, 0)

    persistent.set_up(volume, pod)

    assert look(tmp_path / "data") == "drwxrwsr-x 0 2000"
    assert look(tmp_path / "data/early") == "-rw-rw---- 0 2000"
    assert look(tmp_path / "data/late") == ("-rw-rw---- 0 2000" if again else "-rw------- 0 0")


def test_tear_down_leaves_nothing_mounted_and_nothing_lying(tmp_path: Path) -> None:
    manager, pod = (
        VolumeManager(tmp_path / "pods", tmp_path / "memory"),
        wish({"mem": VOLUMES["mem"], "ed": VOLUMES["ed"]}),
    )
    manager.set_up(pod, projection.Sources(OBJECTS, downward.Addresses("h")))
    places = {mount.container_path: mount.host_path for mount in manager.mounts(pod, pod.spec.containers[0], {})}
    nested = Path(places["/m/ed"]) / "nested"
    nested.mkdir()
    mounts.bind("/usr", str(nested))  # as a Bidirectional volume leaves it
    busy = os.open(f"{places['/m/mem']}", os.O_RDONLY)

    manager.tear_down("u1")
    manager.tear_down("u1")
    assert removal.empty_trash(manager.trash)

    os.close(busy)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert Path("/usr/bin").is_dir()
    assert manager.known_pods() == []
    assert list((tmp_path / "pods").iterdir()) == []
