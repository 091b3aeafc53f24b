"""Records of clusters: atomic, readable after damage, gone without a trace."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from minikube_raw.cli import cluster, nodelogs, noderesources
from minikube_raw.cli.errors import Failure
from minikube_raw.machine import layout, underlay
from minikube_raw.machine.layout import ClusterRecord, Layout, NodeRecord


def record(name: str = "demo") -> ClusterRecord:
    """A cluster of one node."""
    node = NodeRecord("demo-1", "10.243.0.11")
    return ClusterRecord(name, "mkr0", "10.243.0.0/24", "10.244.0.0/16", "10.96.0.0/12", 6443, "/k", (node,))


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    """An installation in a temporary folder."""
    return Layout(tmp_path / "state", tmp_path / "run", "demo")


def test_a_record_is_read_as_it_was_written(place: Layout) -> None:
    assert place.load() is None
    place.save(record())
    assert place.load() == record()
    assert layout.clusters(place.state_root) == ["demo"]


def test_what_up_was_told_of_its_nodes_is_read_as_it_was_written(place: Layout) -> None:
    told = noderesources.parse({"memory_qos": True, "kube_reserved": "cpu=100m"}) | nodelogs.parse("10Mi", 5)
    made = msgspec.structs.replace(record(), kubelet=told)
    place.save(made)
    assert place.load() == made


def test_a_half_written_record_is_read_from_its_copy(place: Layout) -> None:
    place.save(record())
    place.record.write_bytes(place.record.read_bytes()[:40])
    assert place.load() == record()


def test_without_a_copy_damage_is_named(place: Layout) -> None:
    place.save(record())
    place.record.write_text("{")
    (place.run / "cluster.json").unlink()
    with pytest.raises(ValueError, match=r"cluster\.json is not a cluster record"):
        place.load()


def test_a_record_that_could_not_be_read_back_is_not_written(place: Layout) -> None:
    with pytest.raises(ValueError, match=r"cluster\.json is not a cluster record"):
        place.save(msgspec.structs.replace(record(), kubelet={"option": None}))
    assert not place.state.exists()


def test_removal_needs_no_word_of_another_releases_kubelet_options(place: Layout) -> None:
    place.save(record())
    for copy in (place.record, place.run / "cluster.json"):
        copy.write_text(copy.read_text().replace('"kubelet": {}', '"kubelet": {"option": null}'))
    with pytest.raises(ValueError, match="not a cluster record"):
        place.load()
    assert place.remains() == record()


def test_removing_leaves_nothing_of_a_lone_cluster(place: Layout, tmp_path: Path) -> None:
    place.save(record())
    place.remove()
    place.remove()
    assert list(tmp_path.iterdir()) == []


def test_removing_leaves_the_neighbour(place: Layout) -> None:
    other = Layout(place.state_root, place.run_root, "other")
    other.save(record("other"))
    place.save(record())
    place.remove()
    assert layout.clusters(place.state_root) == ["other"]


def test_one_command_at_a_time(place: Layout) -> None:
    with place.locked(), pytest.raises(BlockingIOError), place.locked():
        pass
    with place.locked():
        pass


@pytest.mark.parametrize(
    ("taken", "clash"),
    [
        (["192.168.0.0/16", "fd00::/8", "10.244.3.0/24"], "10.244.3.0/24"),
        (["10.244.0.0/16"], "10.244.0.0/16"),
        (["10.0.0.0/8", "10.245.0.0/16"], None),
    ],
)
def test_pods_addresses_that_others_have_are_found(taken: list[str], clash: str | None) -> None:
    assert underlay.taken_inside("10.244.0.0/16", taken) == clash


def test_an_underlay_avoids_what_the_host_routes() -> None:
    taken = ["10.243.0.0/23", "192.168.0.0/16", "fd00::/8"]
    assert underlay.free_network("10.243.0.0/16", taken) == "10.243.2.0/24"
    with pytest.raises(ValueError, match="in use"):
        underlay.free_network("10.243.0.0/24", ["10.0.0.0/8"])


def test_a_lost_record_is_read_from_its_copy_for_removal(place: Layout) -> None:
    assert place.remains() is None
    place.save(record())
    place.record.unlink()
    assert place.remains() == record()


def test_a_neighbour_whose_record_is_damaged_is_named_with_what_removes_it(place: Layout) -> None:
    place.save(record())
    assert cluster.recorded(place.state_root, place.run_root) == [record()]
    for copy in (place.record, place.run / "cluster.json"):
        copy.write_text("{")
    with pytest.raises(Failure, match=r"cluster\.json is not a cluster record") as it:
        cluster.recorded(place.state_root, place.run_root)
    assert "down --name demo" in it.value.cure
