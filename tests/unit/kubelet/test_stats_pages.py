"""Readings of cgroups as the kubelet's pages show them."""

from __future__ import annotations

from typing import Any

import msgspec
from pod_builders import pod, run

from minikube_raw.kubelet import exposition, summary
from minikube_raw.kubelet.interfaces import Traffic
from minikube_raw.kubelet.measures import Attempts, Measure
from minikube_raw.kubelet.probecounts import ProbeCounts
from minikube_raw.kubelet.probes import Kind, Outcome, Result
from minikube_raw.kubelet.summary import Around, PodDisk
from minikube_raw.kubelet.usage import ContainerUse, NodeUse, PodUse, Reading
from minikube_raw.linux.cgroups import Pressure, Stats, Transfers
from minikube_raw.linux.disk_usage import FileSystem, Use

AT = 1_700_000_010.0
DISK = FileSystem(capacity=1000, available=400, used=600, inodes=100, inodes_free=90)


def reading(memory: int, limit: int | None = None, **psi: dict[str, Pressure]) -> Reading:
    stats = Stats()
    stats.cpu_usage_ns, stats.memory_usage, stats.memory_working_set = 74_068_567, memory, memory
    stats.memory_rss, stats.memory_limit, stats.page_faults, stats.pids = 114_688, limit, 5307, 2
    stats.swap_limit, stats.swap_usage = (4096, 1024) if limit else (None, None)
    return Reading(AT, AT - 10, stats, 0.0037, 10.0, psi)


def use() -> NodeUse:
    wish = pod(volumes=[{"name": "v", "emptyDir": {}}])
    one = ContainerUse(run(), reading(405_504, 33_554_432))
    pods = (PodUse(wish, "kubepods/burstable/podu1", reading(450_560, 33_554_432), (one,)),)
    stalled = {"some": Pressure(1.5, 0.5, 0.1, 7)}
    return NodeUse(reading(5_000_000, cpu=stalled), reading(500_000), pods, 22_534_615_040)


def around(disks: dict[str, PodDisk]) -> Around:
    return Around("n1", DISK, DISK, disks, lambda process, at: {"time": at, "name": "eth0"}, 12, 32_768)


def test_the_summary_has_the_kubelets_shape_and_figures() -> None:
    disk = PodDisk(AT, {"c": Use(28_672, 10)}, {"c": Use(0, 1)}, {"v": Use(4096, 1)}, {})
    told: dict[str, Any] = summary.summary(use(), around({"u1": disk}))
    node, (seen,) = told["node"], told["pods"]
    assert (node["nodeName"], node["systemContainers"][0]["name"]) == ("n1", "pods")
    assert node["memory"]["availableBytes"] == 22_534_615_040
    assert node["cpu"]["psi"] == {"some": {"total": 7000, "avg10": 1.5, "avg60": 0.5, "avg300": 0.1}}
    assert node["rlimit"]["maxpid"] == 32_768
    assert seen["podRef"] == {"name": "p", "namespace": "ns", "uid": "u1"}
    assert seen["ephemeral-storage"]["usedBytes"] == 32_768
    (container,) = seen["containers"]
    assert container["memory"] == {
        "time": "2023-11-14T22:13:30Z",
        "availableBytes": 33_148_928,
        "usageBytes": 405_504,
        "workingSetBytes": 405_504,
        "rssBytes": 114_688,
        "pageFaults": 5307,
        "majorPageFaults": 0,
    }
    assert container["swap"] == {"time": "2023-11-14T22:13:30Z", "swapAvailableBytes": 3072, "swapUsageBytes": 1024}
    assert container["cpu"]["usageNanoCores"] == 3_700_000
    assert (container["rootfs"]["usedBytes"], container["rootfs"]["inodesUsed"]) == (28_672, 10)
    assert seen["volume"][0]["name"] == "v"


def test_without_disks_the_summary_says_nothing_of_them() -> None:
    told = summary.summary(use(), around({}), only_cpu_and_memory=True)
    assert {"fs", "network", "runtime", "rlimit", "io"}.isdisjoint(told["node"])
    assert set(told["pods"][0]) == {"podRef", "startTime", "containers", "cpu", "memory", "swap"}


def test_resource_metrics_are_the_kubelets_lines() -> None:
    lines = exposition.resource(use()).splitlines()
    assert 'container_cpu_usage_seconds_total{container="c",namespace="ns",pod="p"} 0.074068567 1700000010000' in lines
    assert 'pod_memory_working_set_bytes{namespace="ns",pod="p"} 450560 1700000010000' in lines
    assert "node_memory_working_set_bytes 5000000 1700000010000" in lines
    assert 'container_swap_limit_bytes{container="c",namespace="ns",pod="p"} 4096 1700000010000' in lines
    assert "# TYPE container_start_time_seconds gauge" in lines
    assert "resource_scrape_error 0" in lines


def test_probe_metrics_are_the_kubelets_lines() -> None:
    counts, wish = ProbeCounts(), pod()
    for outcome, seconds in ((Outcome.SUCCESS, 0.014), (Outcome.FAILURE, 9.0), (Outcome.SUCCESS, 20.0)):
        counts.add(wish, "c", Kind.LIVENESS, Result(outcome), seconds)
    lines = exposition.probes(counts).splitlines()
    probe = 'container="c",namespace="ns",pod="p"'
    assert [line for line in lines if line.startswith("prober_probe_total")] == [
        f'prober_probe_total{{{probe},pod_uid="u1",probe_type="Liveness",result="failed"}} 1',
        f'prober_probe_total{{{probe},pod_uid="u1",probe_type="Liveness",result="successful"}} 2',
    ]
    durations = {line for line in lines if line.startswith("prober_probe_duration_seconds")}
    within = {"0.005": 0, "0.01": 0, "+Inf": 2} | dict.fromkeys(
        ["0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"], 1
    )
    name, labels = "prober_probe_duration_seconds", f'{probe},probe_type="Liveness"'
    assert durations == {f"{name}_sum{{{labels}}} 20.014", f"{name}_count{{{labels}}} 2"} | {
        f'{name}_bucket{{container="c",le="{bound}",namespace="ns",pod="p",probe_type="Liveness"}} {number}'
        for bound, number in within.items()
    }


def test_cadvisor_metrics_name_the_node_the_pod_and_the_container() -> None:
    lines = exposition.cadvisor(use(), exposition.Beside()).splitlines()
    found = [line for line in lines if line.startswith("container_memory_working_set_bytes")]
    assert [line.partition(" ")[2].split()[0] for line in found] == ["5000000", "500000", "450560", "405504"]
    assert (
        'container="c",id="/kubepods/burstable/podu1/c0",image="busybox",name="c0",namespace="ns",pod="p"' in found[3]
    )
    assert not any(line.startswith("container_cpu_cfs_periods_total{") for line in lines)  # nobody counts them here


def test_cadvisor_metrics_tell_how_long_tasks_have_stalled_where_the_kernel_does() -> None:
    lines = exposition.cadvisor(use(), exposition.Beside()).splitlines()
    of_the_node = '{container="",id="/",image="",name="",namespace="",pod=""}'
    assert [line for line in lines if line.startswith("container_pressure_")] == [
        f"container_pressure_cpu_waiting_seconds_total{of_the_node} 7e-06 1700000010000"
    ]
    assert "# TYPE container_pressure_memory_stalled_seconds_total counter" in lines


def test_cadvisor_metrics_have_disks_by_device_and_networks_by_interface() -> None:
    disks = {"u1": PodDisk(AT, {"c": Use(28_672, 10)}, {}, {}, {})}
    traffic = {"self": {"eth0": Traffic(*range(8))}, "7": {"eth0": Traffic(*range(10, 18))}}
    beside = exposition.Beside({"/dev/vda": DISK}, "/dev/vda", disks, lambda process: traffic.get(process, {}))
    (of,) = use().pods
    seen = msgspec.structs.replace(of.containers[0], status=run(pid=7))
    lines = exposition.cadvisor(
        msgspec.structs.replace(use(), pods=(msgspec.structs.replace(of, containers=(seen,)),)), beside
    ).splitlines()

    def rows(name: str) -> list[str]:
        return [line.removesuffix(" 1700000010000") for line in lines if line.startswith(name + "{")]

    nobody = 'container="",device="/dev/vda",id="/",image="",name="",namespace="",pod=""'
    one = 'container="c",device="/dev/vda",id="/kubepods/burstable/podu1/c0",image="busybox",name="c0"'
    assert rows("container_fs_usage_bytes") == [
        f"container_fs_usage_bytes{{{nobody}}} 600",
        f'container_fs_usage_bytes{{{one},namespace="ns",pod="p"}} 28672',
    ]
    assert rows("container_fs_inodes_free") == [f"container_fs_inodes_free{{{nobody}}} 90"]
    of_pod = 'container="",id="/kubepods/burstable/podu1",image="",interface="eth0",name="",namespace="ns",pod="p"'
    assert rows("container_network_receive_bytes_total")[1] == f"container_network_receive_bytes_total{{{of_pod}}} 10"
    assert rows("container_network_transmit_packets_dropped_total")[0].endswith(" 7")


def test_cadvisor_metrics_have_what_went_from_and_to_block_devices() -> None:
    of = use().pods[0]
    of.containers[0].reading.stats.transfers = {"254:0": Transfers(8192, 4096, 2, 1)}
    beside = exposition.Beside(device_name={"254:0": "/dev/vda"}.__getitem__)

    lines = exposition.cadvisor(msgspec.structs.replace(use(), pods=(of,)), beside).splitlines()

    one = 'container="c",device="/dev/vda",id="/kubepods/burstable/podu1/c0",image="busybox",name="c0",namespace="ns",pod="p"'
    moved = {"reads_bytes": 8192, "reads": 2, "writes_bytes": 4096, "writes": 1}
    assert [line for line in lines if line.startswith(("container_fs_reads", "container_fs_writes"))] == [
        f"container_fs_{name}_total{{{one}}} {count} 1700000010000" for name, count in moved.items()
    ]


def test_labels_cannot_break_out_of_their_quotes() -> None:
    page = exposition.Page()
    page.family("x", "gauge", "text", [({"a": 'b"\\\n'}, 1, 0)])
    assert page.text() == '# HELP x text\n# TYPE x gauge\nx{a="b\\"\\\\\\n"} 1\n'


def test_the_agents_own_metrics_have_what_its_parts_count_family_by_family() -> None:
    counted = [
        Measure("kubelet_cpus", "gauge", "CPUs by node.", 3, {"numa_node": "0"}),
        Measure("kubelet_cpus", "gauge", "CPUs by node.", 1, {"numa_node": "1"}),
        *Attempts().measures("kubelet_pinning", "Tried.", "Failed."),
    ]
    page = exposition.kubelet(running_pods=2, running_containers=3, version="v1", node="n1", counted=counted)
    assert page.endswith(
        "# HELP kubelet_cpus CPUs by node.\n# TYPE kubelet_cpus gauge\n"
        'kubelet_cpus{numa_node="0"} 3\nkubelet_cpus{numa_node="1"} 1\n'
        "# HELP kubelet_pinning_requests_total Tried.\n# TYPE kubelet_pinning_requests_total counter\n"
        "kubelet_pinning_requests_total 0\n"
        "# HELP kubelet_pinning_errors_total Failed.\n# TYPE kubelet_pinning_errors_total counter\n"
        "kubelet_pinning_errors_total 0\n"
    )
    assert 'kubelet_running_containers{container_state="running"} 3\n' in page
