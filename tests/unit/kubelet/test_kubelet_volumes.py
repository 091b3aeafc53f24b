"""Volumes that need no mount: what lies in them, how it is replaced, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pod_builders import pod

from minikube_raw.api.core import ConfigMap, Secret
from minikube_raw.kubelet import atomicwriter, downward, env, projection
from minikube_raw.kubelet.atomicwriter import File
from minikube_raw.kubelet.mounterror import MountError
from minikube_raw.kubelet.volumes import VolumeManager
from minikube_raw.runtime import opening

CM = ConfigMap(data={"a.txt": "one\n", "b": "two"}, binary_data={"bin": "AAEC"})


def sources(config_map: ConfigMap = CM) -> projection.Sources:
    return projection.Sources(
        env.Referred({"cm": config_map}, {"sec": Secret(data={"user": "dQ=="})}), downward.Addresses("h")
    )


def wish(volume: dict, **mount: object) -> object:
    container = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]}
    return pod(containers=[container], volumes=[{"name": "v", **volume}])


def mounted(manager: VolumeManager, of: object) -> Path:
    (mount,) = manager.mounts(of, of.spec.containers[0], {"SUB": "d"})
    return Path(mount.host_path)


def test_a_config_map_is_links_through_data_and_swaps_as_a_whole(tmp_path) -> None:
    manager, of = VolumeManager(tmp_path), wish({"configMap": {"name": "cm"}})
    manager.set_up(of, sources())
    root = mounted(manager, of)

    before = os.readlink(root / "..data")
    assert {path.name: path.read_bytes() for path in root.iterdir() if not path.name.startswith("..")} == {
        "a.txt": b"one\n",
        "b": b"two",
        "bin": b"\0\1\2",
    }
    assert os.readlink(root / "a.txt") == "..data/a.txt"

    manager.set_up(of, sources(ConfigMap(data={"a.txt": "new"})))

    assert (root / "a.txt").read_text() == "new"
    assert not (root / "b").exists()
    assert [path.name for path in root.iterdir() if path.name.startswith("..20")] == [os.readlink(root / "..data")]
    assert os.readlink(root / "..data") != before


def test_the_same_content_is_not_written_again(tmp_path) -> None:
    assert atomicwriter.write(tmp_path, {"a": File(b"x", 0o644)})
    assert not atomicwriter.write(tmp_path, {"a": File(b"x", 0o644)})


def test_items_choose_keys_paths_and_modes(tmp_path) -> None:
    items = [{"key": "a.txt", "path": "x/y/z.txt", "mode": 0o600}]
    manager, of = VolumeManager(tmp_path), wish({"configMap": {"name": "cm", "items": items}})

    manager.set_up(of, sources())

    file = mounted(manager, of) / "x/y/z.txt"
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("one\n", 0o600)


def test_files_made_from_objects_are_read_only_for_the_container(tmp_path) -> None:
    manager, of = VolumeManager(tmp_path), wish({"configMap": {"name": "cm"}})
    manager.set_up(of, sources())

    assert manager.mounts(of, of.spec.containers[0], {})[0].readonly


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        ({"configMap": {"name": "nosuch"}}, 'configmap "nosuch" not found'),
        ({"secret": {"secretName": "later"}}, 'secret "later" not found'),
        ({"configMap": {"name": "cm", "items": [{"key": "k", "path": "p"}]}}, "references non-existent config key: k"),
        ({"configMap": {"name": "cm", "items": [{"key": "b", "path": "../p"}]}}, "invalid path"),
        ({"hostPath": {"path": "/nosuch", "type": "Directory"}}, "hostPath type check failed: /nosuch is not a directory"),
        ({"hostPath": {"path": "/etc", "type": "File"}}, "hostPath type check failed: /etc is not a file"),
        ({"nfs": {}}, "not supported on this node"),
    ],
)  # fmt: skip
def test_a_volume_that_cannot_be_set_up_says_why(tmp_path, volume, why) -> None:
    with pytest.raises(MountError, match=r'MountVolume\.SetUp failed for volume "v" : ') as caught:
        VolumeManager(tmp_path).set_up(wish(volume), sources())
    assert why in str(caught.value)


def test_a_volume_that_is_no_device_is_not_passed_on_as_one(tmp_path) -> None:
    container = {"name": "c", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}
    of = pod(containers=[container], volumes=[{"name": "v", "emptyDir": {}}])
    with pytest.raises(MountError, match="volume v has volumeMode Filesystem, but is specified in volumeDevices"):
        VolumeManager(tmp_path).set_up(of, sources())


def test_an_optional_config_map_may_be_missing(tmp_path) -> None:
    manager, of = VolumeManager(tmp_path), wish({"configMap": {"name": "nosuch", "optional": True}})

    manager.set_up(of, sources())

    assert mounted(manager, of).is_dir()


def test_an_empty_dir_keeps_its_content_over_a_second_set_up(tmp_path) -> None:
    manager, of = VolumeManager(tmp_path), wish({"emptyDir": {}})
    manager.set_up(of, sources())
    (mounted(manager, of) / "kept").touch()

    manager.set_up(of, sources())

    assert (mounted(manager, of) / "kept").exists()
    assert mounted(manager, of).stat().st_mode & 0o777 == 0o777


def test_tear_down_removes_everything_and_may_be_repeated(tmp_path) -> None:
    manager, of = VolumeManager(tmp_path), wish({"emptyDir": {}})
    manager.set_up(of, sources())

    manager.tear_down("u1")
    manager.tear_down("u1")

    assert manager.known_pods() == []


@pytest.mark.parametrize("mount", [{"subPath": "a/b"}, {"subPathExpr": "$(SUB)/e"}])
def test_a_sub_path_is_made_inside_the_volume(tmp_path, mount) -> None:
    manager, of = VolumeManager(tmp_path), wish({"emptyDir": {}}, **mount)
    manager.set_up(of, sources())

    assert mounted(manager, of).is_dir()


@pytest.mark.parametrize("sub_path", ["link", "link/made"])
def test_an_absolute_link_that_leads_back_into_its_volume_is_followed(tmp_path, sub_path) -> None:
    manager, of = VolumeManager(tmp_path), wish({"emptyDir": {}}, subPath=sub_path)
    manager.set_up(of, sources())
    volume = tmp_path / "u1/volumes/kubernetes.io~empty-dir/v"
    (volume / "a/there").mkdir(parents=True)
    os.symlink(volume / "a/hop", volume / "link")
    os.symlink(f"{volume}/a/./deep/../there", volume / "a/hop")
    (volume / "a/deep").mkdir()

    mounted(manager, of)

    assert (volume / sub_path.replace("link", "a/there")).is_dir()
    opened = opening.open_volume({"source": "", "beneath": str(volume), "path": "link"})
    assert os.fstat(opened).st_ino == (volume / "a/there").stat().st_ino
    os.close(opened)


@pytest.mark.parametrize(
    "beyond", ["/etc", "{volume}/../out", "{volume}x", "{volume}/loop", "/proc/self/root{volume}/a"]
)
def test_an_absolute_link_that_leads_elsewhere_is_refused(tmp_path, beyond) -> None:
    volume = tmp_path / "v"
    (volume / "a").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "vx").mkdir()
    os.symlink(beyond.format(volume=volume), volume / "loop")
    with pytest.raises(OSError):
        opening.open_volume({"source": "", "beneath": str(volume), "path": "loop"})


@pytest.mark.parametrize("sub_path", ["../x", "/etc", "link", "link/deeper"])
def test_a_sub_path_cannot_lead_out_of_the_volume(tmp_path, sub_path) -> None:
    manager, of = VolumeManager(tmp_path / "pods"), wish({"emptyDir": {}}, subPath=sub_path)
    manager.set_up(of, sources())
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "pods/u1/volumes/kubernetes.io~empty-dir/v/link")

    try:
        path = mounted(manager, of)
    except env.ConfigError:
        return
    assert path.is_relative_to(tmp_path / "pods")
    assert not list((tmp_path / "outside").iterdir())
