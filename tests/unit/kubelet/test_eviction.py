"""A node that is short of something: when it acts, whom it ends, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.api.core import Pod
from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet import localstorage, ranking
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.eviction import Eviction
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.ranking import Candidate
from minikube_raw.kubelet.summary import PodDisk
from minikube_raw.kubelet.thresholds import Met, Observation, Thresholds
from minikube_raw.kubelet.usage import NodeUse, PodUse, Reading
from minikube_raw.linux.cgroups import Stats
from minikube_raw.linux.disk_usage import FileSystem, Use

MIB = 1 << 20
PLENTY = FileSystem(capacity=1000 * MIB, available=900 * MIB, used=100 * MIB, inodes=1000, inodes_free=900)


def thresholds(**options: Any) -> Thresholds:
    given: dict[str, Any] = {"eviction_hard": {"memory.available": "100Mi", "nodefs.available": "10%"}, **options}
    return Thresholds(KubeletOptions(node_name="n", node_ip="", state_dir="", run_dir="", images_dir="", **given))


def left(mebibytes: int) -> dict[str, Observation]:
    return {"memory.available": Observation(mebibytes * MIB, 4096 * MIB)}


def named(name: str, *, memory: str = "", priority: int = 0, **metadata: Any) -> Pod:
    resources = {"requests": {"memory": memory}} if memory else {}
    meta = {"name": name, "uid": name, **metadata}
    return pod(metadata=meta, containers=[{"name": "c", "image": "i", "resources": resources}], priority=priority)


# -- thresholds ----------------------------------------------------------------------------------------------------------


def test_a_hard_threshold_acts_at_once_and_its_condition_outlasts_it() -> None:
    judge = thresholds().judge
    assert judge(left(200), 0).conditions == frozenset()
    short = judge(left(99), 10)
    assert short.conditions == {"MemoryPressure"}
    assert [(met.signal, met.quantity, met.resource) for met in short.acting] == [
        ("memory.available", 100 * MIB, "memory")
    ]
    calm = judge(left(200), 20)
    assert (calm.conditions, calm.acting) == ({"MemoryPressure"}, ())
    assert judge(left(200), 311).conditions == frozenset()


def test_a_soft_threshold_waits_for_its_grace_period() -> None:
    soft = {"eviction_soft": {"memory.available": "500Mi"}, "eviction_soft_grace_period": {"memory.available": "1m30s"}}
    judge = thresholds(**soft).judge
    assert judge(left(400), 0).acting == ()
    assert judge(left(400), 89).acting == ()
    assert judge(left(600), 90).acting == ()
    assert judge(left(400), 100).acting == ()  # it starts anew
    (met,) = judge(left(400), 190).acting
    assert (met.hard, met.quantity) == (False, 500 * MIB)


def test_a_threshold_that_was_met_stays_so_until_enough_is_reclaimed() -> None:
    judge = thresholds(eviction_minimum_reclaim={"memory.available": "50Mi"}).judge
    assert judge(left(120), 0).acting == ()
    assert judge(left(90), 1).acting
    assert judge(left(120), 2).acting
    assert judge(left(150), 3).acting == ()
    assert judge(left(120), 4).acting == ()


def test_memory_is_more_urgent_than_disk_and_a_share_is_of_the_capacity() -> None:
    observed = left(1) | {"nodefs.available": Observation(99, 1000)}
    judged = thresholds().judge(observed, 0)
    assert [met.resource for met in judged.acting] == ["memory", "ephemeral-storage"]
    assert judged.conditions == {"MemoryPressure", "DiskPressure"}


def test_a_file_system_without_a_count_of_inodes_is_never_short_of_them() -> None:
    judge = thresholds(eviction_hard={"nodefs.inodesFree": "5%"}).judge
    assert judge({"nodefs.inodesFree": Observation(0, 0)}, 0).acting == ()


# -- whom ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "first"),
    [
        pytest.param(
            [Candidate(named("frugal", memory="200Mi"), 150 * MIB), Candidate(named("greedy"), 1 * MIB)],
            "greedy",
            id="what exceeds its request",
        ),
        pytest.param(
            [Candidate(named("high", priority=10), 300 * MIB), Candidate(named("low"), 100 * MIB)],
            "low",
            id="low priority",
        ),
        pytest.param(
            [Candidate(named("a", memory="100Mi"), 150 * MIB), Candidate(named("b"), 60 * MIB)], "b", id="most beyond"
        ),
        pytest.param(
            [
                Candidate(named("critical", priority=2_000_000_000), 900 * MIB),
                Candidate(named("static", annotations={"kubernetes.io/config.source": "file"}), 900 * MIB),
                Candidate(named("other"), 1),
            ],
            "other",
            id="never critical ones",
        ),
    ],
)
def test_the_kubelets_order_decides_who_goes_first(candidates: list[Candidate], first: str) -> None:
    chosen = ranking.choose(candidates, "memory")
    assert chosen is not None
    assert chosen.pod.metadata.name == first


def test_the_message_names_resource_threshold_and_the_containers_beyond_their_requests() -> None:
    candidate = Candidate(named("p", memory="10Mi"), 30 * MIB, {"c": 30 * MIB})
    ending = ranking.eviction(candidate, Met("memory.available", 100 * MIB, 42 * MIB, True), grace=0)
    assert (ending.reason, ending.grace) == ("Evicted", 1)
    assert ending.message == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 42Mi. "
        "Container c was using 30Mi, request is 10Mi, has larger consumption of memory. "
    )
    (condition,) = ending.conditions
    assert (condition["type"], condition["reason"]) == ("DisruptionTarget", "TerminationByKubelet")


@pytest.mark.parametrize(
    ("signal", "threshold", "left", "told"),
    [
        ("pid.available", "2048", 1024, "pids. Threshold quantity: 2048, available: 1024. "),
        ("nodefs.inodesFree", "50000", 12_000, "inodes. Threshold quantity: 50000, available: 12k. "),
        ("nodefs.inodesFree", "50%", 12_000, "inodes. Threshold quantity: 50Ki, available: 12k. "),
        ("memory.available", "500M", MIB, "memory. Threshold quantity: 500M, available: 1Mi. "),
    ],
)
def test_the_message_writes_thresholds_as_they_were_given_and_counts_in_thousands(
    signal: str, threshold: str, left: int, told: str
) -> None:
    limits = thresholds(eviction_hard={signal: threshold})
    (met,) = limits.judge({signal: Observation(left, 102_400)}, now=0.0).acting
    message = ranking.eviction(Candidate(named("p"), 0), met, grace=0).message
    assert message == f"The node was low on resource: {told}"


# -- limits of a pod's own -----------------------------------------------------------------------------------------------


def limited(**limits: Any) -> Pod:
    volume = {"name": "v", "emptyDir": {"sizeLimit": limits.get("volume")} if "volume" in limits else {}}
    own = {"limits": {"ephemeral-storage": limits["container"]}} if "container" in limits else {}
    return pod(containers=[{"name": "c", "image": "i", "resources": own}], volumes=[volume])


def test_a_volume_beyond_its_size_and_a_pod_beyond_its_storage_are_told_in_recorded_words() -> None:
    volume = localstorage.excess(limited(volume="5Mi"), PodDisk(volumes={"v": Use(20 * MIB, 2)}))
    whole = localstorage.excess(limited(container="5Mi"), PodDisk(rootfs={"c": Use(20 * MIB, 2)}))
    assert volume == Ending("Evicted", 'Usage of EmptyDir volume "v" exceeds the limit "5Mi". ', 1)
    assert whole == Ending(
        "Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ", 1
    )


def test_a_limit_of_storage_is_told_in_its_own_units() -> None:
    whole = localstorage.excess(limited(container="5M"), PodDisk(rootfs={"c": Use(20 * MIB, 2)}))
    assert whole is not None
    assert whole.message == "Pod ephemeral local storage usage exceeds the total limit of containers 5M. "


def test_a_pods_overhead_is_room_for_its_storage_too() -> None:
    own = {"name": "c", "image": "i", "resources": {"limits": {"ephemeral-storage": "5Mi"}}}
    wish = pod(containers=[own], overhead={"ephemeral-storage": "10Mi"})
    assert localstorage.excess(wish, PodDisk(volumes={"v": Use(14 * MIB, 2)})) is None
    assert localstorage.excess(wish, PodDisk(volumes={"v": Use(16 * MIB, 2)})) is not None


def test_a_volume_in_memory_has_its_limit_too_and_within_limits_nothing_happens() -> None:
    assert localstorage.excess(limited(volume="5Mi"), PodDisk(memory_volumes={"v": Use(6 * MIB, 2)})) is not None
    assert localstorage.excess(limited(volume="5Mi"), PodDisk(volumes={"v": Use(5 * MIB, 2)})) is None
    assert localstorage.excess(limited(container="5Mi"), PodDisk(logs={"c": Use(5 * MIB, 2)})) is None
    assert not localstorage.is_limited(limited())


# -- the manager ---------------------------------------------------------------------------------------------------------


class Figures:
    """A node whose figures a test sets, by pod."""

    def __init__(self) -> None:
        self.free = 4000
        self.used: dict[str, int] = {}
        self.held: dict[str, PodDisk] = {}
        self.pods: list[Pod] = []
        self.nodefs = self.imagefs = PLENTY

    async def memory(self) -> Mapping[str, Observation]:
        return left(self.free)

    async def usage(self, *, pressures: bool = True) -> NodeUse:
        uses = tuple(PodUse(each, "", self._reading(each), ()) for each in self.pods)
        return NodeUse(uses[0].reading, uses[0].reading, uses, 0)

    def _reading(self, of: Pod) -> Reading:
        stats = Stats()
        stats.memory_working_set = self.used[of.metadata.uid]
        return Reading(0, 0, stats, 0, 1)

    async def disks(self, wanted: Any = lambda pod: True, max_age: float = 0.0) -> Mapping[str, PodDisk]:
        return {each.metadata.uid: self.held[each.metadata.uid] for each in self.pods if wanted(each)}

    def file_systems(self) -> tuple[FileSystem, FileSystem]:
        return self.nodefs, self.imagefs

    def images_share_disk(self) -> bool:
        return self.nodefs is self.imagefs

    def pids(self) -> Observation:
        return Observation(1000, 32_768)

    def admitted(self) -> list[Pod]:
        return self.pods


class Node:
    """A node with its eviction; `gives` says what is free once dead containers, or unused images, were deleted."""

    def __init__(self, **options: Any) -> None:
        self.figures = Figures()
        self.gives: dict[str, FileSystem] = {}
        self.reclaimed: list[str] = []
        self.clock = ManualClock()
        self.ended: dict[str, Ending] = {}
        self.events: list[str] = []
        self.changes = 0
        self.eviction = Eviction(
            thresholds(**options),
            self.figures,
            self.figures,
            self,
            end=self.ended.__setitem__,
            record=lambda pod, kind, reason, message: self.events.append(f"{pod.metadata.name} {kind} {reason}"),
            told=lambda reason, message: self.events.append(f"{reason} {message}"),
            changed=self._changed,
            clock=self.clock,
        )

    def _changed(self, before: frozenset[str], now: frozenset[str]) -> None:
        assert before != now
        self.changes += 1

    async def dead_containers(self) -> None:
        self._give_up("containers")

    async def unused_images(self) -> None:
        self._give_up("images")

    def _give_up(self, what: str) -> None:
        self.reclaimed.append(what)
        shared = self.figures.images_share_disk()
        self.figures.nodefs = self.gives.get(what, self.figures.nodefs)
        if shared:
            self.figures.imagefs = self.figures.nodefs

    def runs(self, *pods: Pod, using: int) -> None:
        for each in pods:
            self.figures.pods.append(each)
            self.figures.used[each.metadata.uid] = using * MIB
            self.figures.held[each.metadata.uid] = PodDisk()


async def test_one_pod_at_a_time_goes_until_there_is_enough() -> None:
    node = Node()
    node.runs(named("a"), named("b", priority=1), using=50)
    assert await node.eviction.look() == ""

    node.figures.free = 50
    assert await node.eviction.look() == "a"
    assert await node.eviction.look() == ""  # a is still ending
    node.figures.pods = node.figures.pods[1:]
    assert await node.eviction.look() == "b"
    assert list(node.ended) == ["a", "b"]
    assert node.events[:2] == ["EvictionThresholdMet Attempting to reclaim memory", "a Warning Evicted"]
    assert (node.eviction.conditions, node.changes) == ({"MemoryPressure"}, 1)


async def test_a_pod_that_does_not_end_is_not_waited_for_for_ever() -> None:
    node = Node()
    node.runs(named("stuck"), named("other", priority=1), using=50)
    node.figures.free = 50
    assert await node.eviction.look() == "stuck"
    node.clock.advance(29)
    assert await node.eviction.look() == ""
    node.clock.advance(2)
    assert await node.eviction.look() == "other"


def disk(free: int) -> FileSystem:
    """A file system of 1000 MiB."""
    return FileSystem(1000 * MIB, free * MIB, (1000 - free) * MIB, 1000, 900)


async def test_short_of_disk_a_node_gives_up_dead_containers_and_images_before_a_pod() -> None:
    node = Node()
    node.runs(named("a"), using=50)
    node.figures.nodefs = node.figures.imagefs = disk(90)
    node.gives = {"images": disk(150)}

    assert await node.eviction.look() == ""

    assert node.reclaimed == ["containers", "images"]
    assert node.events == ["EvictionThresholdMet Attempting to reclaim ephemeral-storage"]
    assert node.eviction.conditions == {"DiskPressure"}


async def test_what_is_given_up_must_reach_the_minimum_reclaim_or_a_pod_goes() -> None:
    node = Node(eviction_minimum_reclaim={"nodefs.available": "50Mi"})
    node.runs(named("a"), using=50)
    node.figures.nodefs = node.figures.imagefs = disk(90)
    node.gives = {"containers": disk(149)}

    assert await node.eviction.look() == "a"


async def test_images_on_a_disk_of_their_own_stay_when_the_nodes_is_short() -> None:
    node = Node()
    node.runs(named("a"), using=50)
    node.figures.nodefs = disk(90)

    assert await node.eviction.look() == "a"

    assert node.reclaimed == ["containers"]


async def test_short_of_memory_nothing_on_disk_is_given_up() -> None:
    node = Node()
    node.runs(named("a"), using=50)
    node.figures.free = 50

    assert await node.eviction.look() == "a"

    assert node.reclaimed == []


async def test_a_pod_beyond_its_own_limit_goes_though_the_node_has_plenty() -> None:
    node = Node()
    greedy = limited(volume="5Mi")
    node.runs(greedy, using=1)
    node.figures.held["u1"] = PodDisk(volumes={"v": Use(6 * MIB, 1)})
    assert await node.eviction.look() == "u1"
    assert await node.eviction.look() == ""  # it is still ending, and told once
    assert node.events == ["p Warning Evicted"]
    assert node.eviction.conditions == frozenset()
