"""Which images a node deletes, in which order, and what it says when that is not enough."""

from __future__ import annotations

from typing import Any

import msgspec

from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet.imagegc import ImageCollector
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux.disk_usage import FileSystem

GIB = 1 << 30


class Image(msgspec.Struct, frozen=True):
    id: str
    size: int = GIB
    digest: str = ""
    references: tuple[str, ...] = ()
    config: Any = None


class Disk:
    """A disk of 100 GiB with images, each of one GiB, as their store; `other` is in use beside them."""

    def __init__(self, *names: str, other: int = 0, **options: Any) -> None:
        self.images = [Image(name, digest=name) for name in names]
        self.other = other
        self.used: set[str] = set()
        self.deletions: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.clock = ManualClock(1000)
        paths = {"state_dir": "", "run_dir": "", "images_dir": ""}
        given = KubeletOptions(node_name="n", node_ip="", **paths, **options)
        told = lambda reason, message: self.events.append((reason, message))  # noqa: E731
        self.collector = ImageCollector(given, self, self._figures, told, self.clock)

    def _figures(self) -> FileSystem:
        free = (100 - self.other - len(self.images)) * GIB
        return FileSystem(100 * GIB, free, 100 * GIB - free, 0, 0)

    def list(self) -> list[Image]:
        return list(self.images)

    def held(self) -> set[str]:
        return self.used

    def remove(self, image_id: str) -> bool:
        self.deletions.append(image_id)
        self.images = [each for each in self.images if each.id != image_id]
        return True

    def find(self, name: str) -> None:
        raise NotImplementedError

    obtain = find

    @property
    def left(self) -> list[str]:
        return [each.id for each in self.images]


async def test_only_images_that_nobody_holds_are_deleted_and_young_ones_stay() -> None:
    disk = Disk("held", "free")
    disk.used = {"held"}
    await disk.collector.collect()
    disk.images.append(Image("young"))
    await disk.collector.delete_unused()
    assert disk.left == ["held", "young"]

    disk.clock.advance(121)
    await disk.collector.delete_unused()
    assert disk.left == ["held"]


async def test_above_the_high_threshold_the_longest_unused_go_first() -> None:
    disk = Disk("late", "early", "never", "held", other=79)
    for used in ({"late", "early", "held"}, {"late", "held"}, {"held"}):
        disk.used = used
        await disk.collector.collect()
        disk.clock.advance(10)
    assert disk.left == ["late", "early", "never", "held"]  # 83 %: below the threshold

    disk.other, gone = 81, disk.deletions
    await disk.collector.collect()
    assert gone == ["never", "early", "late"]


async def test_of_what_may_go_no_more_goes_than_needed() -> None:
    disk = Disk("a", "b", "c", "d", "e", "f", "g", other=78)
    await disk.collector.collect()
    assert disk.left == ["f", "g"]
    assert disk.events == []


async def test_too_little_to_delete_is_told_and_the_second_time_it_is_the_nodes_trouble() -> None:
    disk = Disk("a", other=90)
    await disk.collector.collect()
    reason, message = disk.events[0]
    assert reason == "FreeDiskSpaceFailed"
    assert message == (
        "Insufficient free disk space on the node's image filesystem (91% of 100.0 GiB used). Failed to free sufficient "
        f"space by deleting unused images (freed {GIB} bytes). Investigate disk usage, as it could be used by active images, "
        "logs, volumes, or other data."
    )
    await disk.collector.collect()
    assert [reason for reason, _ in disk.events] == ["FreeDiskSpaceFailed", "FreeDiskSpaceFailed", "ImageGCFailed"]


async def test_an_image_unused_for_too_long_goes_though_there_is_room() -> None:
    disk = Disk("old", "used", image_maximum_gc_age=3600.0)
    disk.used = {"used"}
    await disk.collector.collect()
    disk.clock.advance(3500)
    await disk.collector.collect()
    assert disk.left == ["old", "used"]
    disk.clock.advance(200)
    disk.used = set()
    await disk.collector.collect()
    assert disk.left == ["used"]


async def test_a_high_threshold_of_100_percent_is_never_reached() -> None:
    disk = Disk("a", other=99, image_gc_high_threshold_percent=100)
    await disk.collector.collect()
    assert disk.left == ["a"]
    assert disk.events == []
