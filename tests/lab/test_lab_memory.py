"""Memory on cgroup v2: who dies when it runs out, what is kept for whom, what is slowed down, what goes to swap, huge pages.

Containers that hold memory are Python of the machine itself, which says "held" when it does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.machine import Machine
from tests.lab.pods import Cgroup, ask, container, ended, pod, python, run, run_under, running

Json = dict[str, Any]
MIB = 1 << 20
SWAP = 512 * MIB  # several times what a test needs, since pages that wait for a slow disk have their share already
QOS = {"memory_qos": True, "memory_reservation_policy": "TieredReservation"}
GUARANTEED = {"limits": {"cpu": "100m", "memory": "64Mi"}}
BURSTABLE = {"requests": {"memory": "24Mi"}, "limits": {"memory": "64Mi"}}
# In small pages: of huge ones Linux 6.1 swaps so many at once that a container's share of swap is full before they are written.
HOLD = """
import mmap, time
held = mmap.mmap(-1, {mebibytes} << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, len(held), 4096):
    held[page] = 1
print("held", flush=True)
time.sleep(1000)
"""
# A file read is memory that the kernel could have back at any time.
READ = "dd if=/dev/zero of=/file bs=1M count={mebibytes} && sync && echo held; exec sleep 1000"
HUGE = """
import mmap
for pages in (2, 3):
    try:
        with mmap.mmap(-1, pages << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000) as memory:
            memory[:5] = b"hello"
            print(pages, "held")
    except OSError as error:
        print(pages, error.strerror)
"""


def hold(mebibytes: int, resources: Json) -> Json:
    """A container that holds so much."""
    return python(HOLD.format(mebibytes=mebibytes), resources)


def until_said(lab: Machine, name: str, word: str) -> None:
    """Wait until a pod has said a word."""
    logs = f"/var/lib/minikube-raw/standalone/logs/default_{name}_*/c/*.log"
    lab.run(f"until grep -qs {word} {logs}; do sleep 0.5; done", timeout=120)


@pytest.fixture
def cleared(lab: Machine) -> Iterator[Machine]:
    """A machine whose pods are gone afterwards."""
    yield lab
    lab.product("pod rm --all", check=False)


@pytest.fixture
def swapping(cleared: Machine) -> Iterator[Machine]:
    """A machine that can swap to a file."""
    cleared.run(f"fallocate -l {SWAP} /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap")
    yield cleared
    cleared.product("pod rm --all", check=False)
    cleared.run("swapoff /swap && rm /swap")


@pytest.fixture
def with_huge_pages(cleared: Machine) -> Iterator[Machine]:
    """A machine whose kernel keeps four huge pages."""
    cleared.run("sysctl -q vm.compact_memory=1 vm.nr_hugepages=4 && grep -q 'HugePages_Total: *4' /proc/meminfo")
    yield cleared
    cleared.product("pod rm --all", check=False)
    cleared.run("sysctl -q vm.nr_hugepages=0")


def test_a_container_that_runs_out_of_memory_ends_with_all_its_processes(cleared: Machine) -> None:
    script = "tail /dev/zero; echo only the largest process was killed; exec sleep 1000"
    limited = container(script, {"limits": {"memory": "32Mi"}})
    found = run(cleared, pod("hungry", limited, restartPolicy="Never"), until="ended")

    how = ended(found)
    assert (how["reason"], how["exitCode"]) == ("OOMKilled", 137)
    assert cleared.product("pod logs hungry") == ""


def test_what_stalls_is_told_in_the_figures_of_a_container(cleared: Machine) -> None:
    busy = container("while :; do :; done & while :; do :; done", {"limits": {"cpu": "50m"}})
    found = run(cleared, pod("busy", busy))
    group = Cgroup.of_pod(cleared, found).container()
    cleared.run(f"until awk -F= '/^full/ {{exit $NF < 200000}}' {group.path}/cpu.pressure; do sleep 0.2; done")

    (seen,) = json.loads(ask(cleared, "/stats/summary"))["pods"]
    page = ask(cleared, "/metrics/cadvisor")
    in_the_kernel = {line.split()[0]: int(line.rpartition("=")[2]) for line in pressure(cleared, group)}

    for kind, word in (("some", "waiting"), ("full", "stalled")):
        of_the_container = seen["containers"][0]["cpu"]["psi"][kind]["total"]
        assert 200_000_000 <= of_the_container <= in_the_kernel[kind] * 1000
        assert seen["cpu"]["psi"][kind]["total"] >= of_the_container
        name = f'container_pressure_cpu_{word}_seconds_total{{container="c"'
        (line,) = (line for line in page.splitlines() if line.startswith(name))
        assert of_the_container / 1e9 <= float(line.split()[-2]) <= in_the_kernel[kind] / 1e6


def pressure(lab: Machine, group: Cgroup) -> list[str]:
    return lab.run(f"cat {group.path}/cpu.pressure").splitlines()


def test_huge_pages_are_bounded_for_a_container_and_its_pod_and_none_for_who_asks_for_none(
    with_huge_pages: Machine,
) -> None:
    lab = with_huge_pages
    asks = python(HUGE + "import time; time.sleep(1000)", {"limits": {"memory": "64Mi", "hugepages-2Mi": "4Mi"}})
    groups = {}
    for made in (pod("asks", asks), pod("does-not", python(HUGE + "import time; time.sleep(1000)"))):
        name = made["metadata"]["name"]
        groups[name] = Cgroup.of_pod(lab, run(lab, made))
        until_said(lab, name, "3")

    assert lab.product("pod logs asks").splitlines() == ["2 held", "3 Cannot allocate memory"]
    assert lab.product("pod logs does-not").splitlines() == ["2 Cannot allocate memory", "3 Cannot allocate memory"]
    for name, most in (("asks", 4 * MIB), ("does-not", 0)):
        for group in (groups[name], groups[name].container()):
            files = ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max")
            assert group.read(*files) == dict.fromkeys(files, str(most))


def test_what_guaranteed_pods_ask_for_is_kept_from_reclaim_and_what_burstable_ones_do_while_there_is_other(
    cleared: Machine,
) -> None:
    asked = {"guaranteed": GUARANTEED, "burstable": BURSTABLE, "besteffort": {}}
    script = READ.format(mebibytes=16)
    run_under(cleared, QOS, pod("guaranteed", container(script, asked["guaranteed"])))
    found = {"guaranteed": running(cleared, "guaranteed")}
    for name in ("burstable", "besteffort"):
        found[name] = run(cleared, pod(name, container(script, asked[name])))
    for name in asked:
        until_said(cleared, name, "held")
    groups = {name: Cgroup.of_pod(cleared, each) for name, each in found.items()}
    files = ("memory.min", "memory.low")

    for name, least, low in (("guaranteed", 64, 0), ("burstable", 0, 24), ("besteffort", 0, 0)):
        for group in (groups[name], groups[name].container()):
            assert group.read(*files) == {"memory.min": str(least * MIB), "memory.low": str(low * MIB)}, name
    pods = groups["guaranteed"].above()
    for above, least in ((groups["burstable"].above(), 0), (pods, 88), (pods.above(), 88)):
        assert above.read(*files) == {"memory.min": str(least * MIB), "memory.low": str(24 * MIB)}, above.path

    def cached() -> dict[str, int]:
        """MiB of files that each container has in memory."""
        return {name: groups[name].container().count("memory.stat", "file") // MIB for name in asked}

    before = cached()
    cleared.run(f"echo 12M > {pods.path}/memory.reclaim")
    some = cached()
    cleared.run(f"echo 512M > {pods.path}/memory.reclaim", check=False)  # there is not so much
    most = cached()
    assert min(before.values()) >= 16, before
    assert (some["guaranteed"] >= 15, some["burstable"] >= 15, some["besteffort"] <= 8) == (True, True, True), some
    assert (most["guaranteed"] >= 15, most["burstable"] <= 8, most["besteffort"] <= 8) == (True, True, True), most


def test_a_container_is_slowed_down_between_request_and_limit_and_without_a_limit_near_what_the_node_has(
    cleared: Machine,
) -> None:
    run_under(cleared, QOS, pod("unlimited", container("exec sleep 1000")))
    unlimited = Cgroup.of_pod(cleared, running(cleared, "unlimited")).container()
    slow = Cgroup.of_pod(
        cleared, run(cleared, pod("slow", container(READ.format(mebibytes=80), BURSTABLE)))
    ).container()
    until_said(cleared, "slow", "held")
    (seen,) = (each for each in json.loads(ask(cleared, "/stats/summary"))["pods"] if each["podRef"]["name"] == "slow")

    high = (24 * MIB + int(0.9 * 40 * MIB)) // 4096 * 4096
    assert slow.read("memory.high", "memory.max") == {"memory.high": str(high), "memory.max": str(64 * MIB)}
    assert slow.count("memory.events", "high") > 0
    assert slow.count("memory.events", "max") == 0
    assert seen["containers"][0]["memory"]["psi"]["some"]["total"] > 0
    total = int(cleared.run("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024
    near = {"memory.high": str(int(0.9 * total) // 4096 * 4096), "memory.max": "max"}
    assert unlimited.read("memory.high", "memory.max") == near


def test_a_pod_has_no_more_processes_than_its_node_allows_and_its_neighbours_are_not_touched(cleared: Machine) -> None:
    run_under(cleared, {"pod_pids_limit": 20}, pod("neighbour", container("exec sleep 1000")))
    many = "for i in $(seq 40); do sleep 1000 & done; echo none was refused; wait"
    bomb = run(cleared, pod("bomb", container(many)), until="ended")
    other = run(cleared, pod("other", container("for i in $(seq 10); do sleep 1 & done; wait")), until="ended")

    assert (ended(bomb)["reason"], ended(other)["reason"]) == ("Error", "Completed")
    assert "can't fork: Resource temporarily unavailable" in cleared.product("pod logs bomb")
    neighbour = Cgroup.of_pod(cleared, running(cleared, "neighbour"))
    assert neighbour.read("pids.max") == {"pids.max": "20"}


def test_a_burstable_container_swaps_by_what_it_asks_of_the_memory_and_others_do_not(swapping: Machine) -> None:
    lab = swapping
    asks = {"requests": {"memory": "96Mi"}, "limits": {"memory": "104Mi"}}
    run_under(lab, {"memory_swap_behavior": "LimitedSwap"}, pod("swaps", hold(112, asks)))
    until_said(lab, "swaps", "held")
    swaps = Cgroup.of_pod(lab, running(lab, "swaps"))
    more = run(lab, pod("too-much", hold(200, asks)), until="ended")
    fixed = run(lab, pod("fixed", hold(112, {"limits": {"cpu": "1", "memory": "104Mi"}})), until="ended")

    total = int(lab.run("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024
    usable = int(lab.run("awk '/^SwapTotal/ {print $2}' /proc/meminfo")) * 1024
    share = usable * 96 * MIB // total
    found = swaps.container().read("memory.swap.max", "memory.swap.current", "memory.max")
    assert (int(found["memory.swap.max"]), int(found["memory.max"])) == (share // 4096 * 4096, 104 * MIB)
    assert 8 * MIB <= int(found["memory.swap.current"]) <= share
    (seen,) = (each for each in json.loads(ask(lab, "/stats/summary"))["pods"] if each["podRef"]["name"] == "swaps")
    assert 8 * MIB <= seen["containers"][0]["swap"]["swapUsageBytes"] <= share
    assert [ended(each)["reason"] for each in (more, fixed)] == ["OOMKilled", "OOMKilled"]


def test_without_limited_swap_no_container_swaps(swapping: Machine) -> None:
    asks = {"requests": {"memory": "32Mi"}, "limits": {"memory": "64Mi"}}
    found = run(swapping, pod("stays", hold(72, asks)), until="ended")
    free = run(swapping, pod("free", container("exec sleep 1000")))

    assert ended(found)["reason"] == "OOMKilled"
    assert Cgroup.of_pod(swapping, free).container().read("memory.swap.max") == {"memory.swap.max": "0"}
