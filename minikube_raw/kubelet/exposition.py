"""/metrics/resource, /metrics/cadvisor, /metrics/probes and /metrics as Prometheus text (exposition format 0.0.4).

A writer of our own: figures are read when they are asked for, so a client library's registry of living counters would only
be filled to be emptied again. Names and labels are the kubelet's and cAdvisor's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import psutil

from minikube_raw.kubelet.interfaces import Traffic
from minikube_raw.kubelet.measures import Measure
from minikube_raw.kubelet.probecounts import BUCKETS, Count, Probed
from minikube_raw.kubelet.summary import PodDisk
from minikube_raw.kubelet.usage import PRESSURES, ContainerUse, NodeUse, PodUse, Reading
from minikube_raw.linux.cgroups import Stats, Transfers
from minikube_raw.linux.disk_usage import FileSystem

CONTENT_TYPE = "text/plain; version=0.0.4"
Labels = Mapping[str, str]
Value = Callable[[Stats], float | None]
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Page:
    """Families of samples in the order they are first written."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float, float]]) -> None:
        """Write one family: (labels, value, seconds since the epoch or 0) each."""
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labels, value, at in samples:
            self._sample(name, labels, value, at)

    def histogram(self, name: str, text: str, rows: Iterable[tuple[Labels, Mapping[str, int], float]]) -> None:
        """Write one: labels, how many by upper bound (the last is "+Inf", that of all), and their sum."""
        self._lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        for labels, within, total in rows:
            for bound, number in within.items():
                self._sample(f"{name}_bucket", {**labels, "le": bound}, number)
            self._sample(f"{name}_sum", labels, total)
            self._sample(f"{name}_count", labels, within["+Inf"])

    def _sample(self, name: str, labels: Labels, value: float, at: float = 0.0) -> None:
        inside = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in sorted(labels.items()))
        stamp = f" {int(at * 1000)}" if at else ""
        self._lines.append(f"{name}{{{inside}}} {value!r}{stamp}" if inside else f"{name} {value!r}{stamp}")

    def text(self) -> str:
        """The page."""
        return "\n".join([*self._lines, ""])


def resource(use: NodeUse) -> str:
    """/metrics/resource: what autoscalers read."""
    page = Page()
    levels: list[tuple[str, list[tuple[Labels, Reading]]]] = [
        ("container", _containers(use)),
        ("node", [({}, use.node)]),
        ("pod", [(_pod_labels(each), each.reading) for each in use.pods]),
    ]
    for level, rows in levels:
        seconds = [(labels, (row.stats.cpu_usage_ns or 0) / 1e9, row.at) for labels, row in rows]
        text = f"Cumulative cpu time consumed by the {level} in core-seconds"
        page.family(f"{level}_cpu_usage_seconds_total", "counter", text, seconds)
        sets = [(labels, row.stats.memory_working_set or 0, row.at) for labels, row in rows]
        page.family(f"{level}_memory_working_set_bytes", "gauge", f"Current working set of the {level} in bytes", sets)
        swaps = [(labels, row.stats.swap_usage or 0, row.at) for labels, row in rows]
        page.family(f"{level}_swap_usage_bytes", "gauge", f"Current amount of the {level} swap usage in bytes", swaps)
        if level == "container":
            most = [(labels, row.stats.swap_limit, row.at) for labels, row in rows if row.stats.swap_limit is not None]
            text = "Current amount of the container swap limit in bytes"
            page.family("container_swap_limit_bytes", "gauge", text, most)
            starts = [(labels, row.since, 0.0) for labels, row in rows]
            text = "Start time of the container since unix epoch in seconds"
            page.family("container_start_time_seconds", "gauge", text, starts)
    page.family("resource_scrape_error", "gauge", "1 if there was an error while getting metrics", [({}, 0, 0)])
    return page.text()


def _containers(use: NodeUse) -> list[tuple[Labels, Reading]]:
    return [
        ({"container": each.status.name, **_pod_labels(pod)}, each.reading)
        for pod in use.pods
        for each in pod.containers
    ]


def _pod_labels(use: PodUse) -> Labels:
    return {"namespace": use.pod.metadata.namespace, "pod": use.pod.metadata.name}


# name → type and value of a cgroup's figures; what no controller counts is left out.
_CADVISOR: dict[str, tuple[str, Value]] = {
    "container_cpu_cfs_periods_total": ("counter", lambda stats: stats.cpu_periods),
    "container_cpu_cfs_throttled_periods_total": ("counter", lambda stats: stats.cpu_throttled_periods),
    "container_cpu_cfs_throttled_seconds_total": ("counter", lambda stats: _seconds(stats.cpu_throttled_ns)),
    "container_cpu_usage_seconds_total": ("counter", lambda stats: _seconds(stats.cpu_usage_ns)),
    "container_memory_cache": ("gauge", lambda stats: stats.memory_cache),
    "container_memory_max_usage_bytes": ("gauge", lambda stats: stats.memory_peak),
    "container_memory_rss": ("gauge", lambda stats: stats.memory_rss),
    "container_memory_swap": ("gauge", lambda stats: stats.swap_usage),
    "container_memory_usage_bytes": ("gauge", lambda stats: stats.memory_usage),
    "container_memory_working_set_bytes": ("gauge", lambda stats: stats.memory_working_set),
    "container_oom_events_total": ("counter", lambda stats: stats.oom_kills),
    "container_processes": ("gauge", lambda stats: stats.pids),
    "container_spec_memory_limit_bytes": ("gauge", lambda stats: stats.memory_limit or 0),
}


# PSI: cAdvisor's word → the kernel's.
_STALLS = {"stalled": "full", "waiting": "some"}


_FILE_SYSTEM: dict[str, Callable[[FileSystem], int]] = {
    "container_fs_inodes_free": lambda found: found.inodes_free,
    "container_fs_inodes_total": lambda found: found.inodes,
    "container_fs_limit_bytes": lambda found: found.capacity,
    "container_fs_usage_bytes": lambda found: found.used,
}
_TRANSFERS: dict[str, Callable[[Transfers], int]] = {
    "container_fs_reads_bytes_total": lambda found: found.read_bytes,
    "container_fs_reads_total": lambda found: found.reads,
    "container_fs_writes_bytes_total": lambda found: found.write_bytes,
    "container_fs_writes_total": lambda found: found.writes,
}
_NOTHING = {"container": "", "image": "", "name": "", "namespace": "", "pod": ""}


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


class Beside(msgspec.Struct, frozen=True):
    """What cAdvisor tells beside figures of cgroups."""

    file_systems: Mapping[str, FileSystem] = {}  # of the node, by device
    device: str = ""  # that of the containers' writable layers
    disks: Mapping[str, PodDisk] = {}  # by pod uid
    traffic: Callable[[str], Mapping[str, Traffic]] = lambda process: {}  # of a process, "self" or a pid, by interface
    device_name: Callable[[str], str] = str  # of a block device, by its number


def cadvisor(use: NodeUse, beside: Beside) -> str:
    """/metrics/cadvisor: a row for the node (id "/"), for the cgroup of all pods, for each pod and each container."""
    page, rows = Page(), list(_cadvisor_rows(use))
    for name, (kind, value) in _CADVISOR.items():
        total = {"cpu": "total"} if name == "container_cpu_usage_seconds_total" else {}
        figures = ((labels, value(row.stats), row.at) for labels, row in rows)
        page.family(name, kind, name, [({**labels, **total}, n, at) for labels, n, at in figures if n is not None])
    _pressures(page, rows)
    _file_systems(page, use, beside)
    _transfers(page, rows, beside.device_name)
    _networks(page, use, beside)
    starts = [(labels, row.since, row.at) for labels, row in rows]
    page.family(
        "container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", starts
    )
    return page.text()


def _pressures(page: Page, rows: Sequence[tuple[Labels, Reading]]) -> None:
    """How long the tasks of a cgroup, some or all of them, could not go on for want of a resource."""
    for resource in PRESSURES:
        for word, kind in _STALLS.items():
            found = ((labels, row.pressures.get(resource, {}).get(kind), row.at) for labels, row in rows)
            totals = [(labels, line.total_us / 1e6, at) for labels, line, at in found if line is not None]
            name = f"container_pressure_{resource}_{word}_seconds_total"
            page.family(name, "counter", name, totals)


def _file_systems(page: Page, use: NodeUse, beside: Beside) -> None:
    """The node's file systems as a whole, and of each container what it has written into its own."""
    node = [({**_NOTHING, "id": "/", "device": device}, each) for device, each in beside.file_systems.items()]
    own = [
        ({**labels, "device": beside.device}, beside.disks[pod.pod.metadata.uid].rootfs[each.status.name].bytes)
        for pod in use.pods
        if pod.pod.metadata.uid in beside.disks
        for each, labels in _container_rows(pod)
        if each.status.name in beside.disks[pod.pod.metadata.uid].rootfs
    ]
    at = use.node.at
    for name, value in _FILE_SYSTEM.items():
        rows = [(labels, value(each)) for labels, each in node]
        rows += own if name == "container_fs_usage_bytes" else []
        page.family(name, "gauge", name, [(labels, number, at) for labels, number in rows])


def _transfers(page: Page, rows: Iterable[tuple[Labels, Reading]], name_of: Callable[[str], str]) -> None:
    """What went from and to block devices."""
    found = [
        ({**labels, "device": name_of(number)}, each, row.at)
        for labels, row in rows
        for number, each in (row.stats.transfers or {}).items()
    ]
    for name, value in _TRANSFERS.items():
        page.family(name, "counter", name, [(labels, value(each), at) for labels, each, at in found])


def _networks(page: Page, use: NodeUse, beside: Beside) -> None:
    """The node's interfaces and each pod's; a pod in the node's network has none of its own."""
    rows = [({**_NOTHING, "id": "/"}, "self")]
    rows += [
        ({**_NOTHING, **_pod_labels(pod), "id": f"/{pod.cgroup}"}, str(pod.process))
        for pod in use.pods
        if pod.process and not pod.pod.spec.host_network
    ]
    found = [
        ({**labels, "interface": name}, each)
        for labels, process in rows
        for name, each in beside.traffic(process).items()
    ]
    for field in Traffic._fields:
        name = f"container_network_{field}_total"
        page.family(name, "counter", name, [(labels, getattr(each, field), use.node.at) for labels, each in found])


def _cadvisor_rows(use: NodeUse) -> Iterable[tuple[Labels, Reading]]:
    yield {**_NOTHING, "id": "/"}, use.node
    yield {**_NOTHING, "id": "/kubepods"}, use.all_pods
    for pod in use.pods:
        yield {**_NOTHING, **_pod_labels(pod), "id": f"/{pod.cgroup}"}, pod.reading
        for each, labels in _container_rows(pod):
            yield labels, each.reading


def _container_rows(pod: PodUse) -> Iterable[tuple[ContainerUse, Labels]]:
    for each in pod.containers:
        own = {"container": each.status.name, "image": each.status.image_name, "name": each.status.id}
        yield each, {**_NOTHING, **_pod_labels(pod), **own, "id": f"/{pod.cgroup}/{each.status.id}"}


def probes(counts: Iterable[tuple[Probed, Count]]) -> str:
    """/metrics/probes: what each probe of a container said, and how long those took that succeeded."""
    page, durations, totals = Page(), [], []
    for probed, count in counts:
        labels = probed._asdict()
        for result in ("failed", "successful"):
            if number := getattr(count, result):
                totals.append(({**labels, "result": result}, number, 0.0))
        if count.successful:
            del labels["pod_uid"]
            within = {f"{bound:g}": number for bound, number in zip(BUCKETS, count.within, strict=True)}
            durations.append((labels, {**within, "+Inf": count.successful}, count.seconds))
    page.histogram("prober_probe_duration_seconds", "Duration in seconds for a probe response.", durations)
    text = "Cumulative number of a liveness, readiness or startup probe for a container by result."
    page.family("prober_probe_total", "counter", text, totals)
    text = "Start time of the process since unix epoch in seconds."
    page.family("process_start_time_seconds", "gauge", text, [({}, psutil.Process().create_time(), 0)])
    return page.text()


def kubelet(
    *, running_pods: int, running_containers: int, version: str, node: str, counted: Iterable[Measure] = ()
) -> str:
    """/metrics: the agent itself, and what its parts have `counted`."""
    page, process = Page(), psutil.Process()
    with process.oneshot():
        cpu, memory = sum(process.cpu_times()[:2]), process.memory_info()
        began, files = process.create_time(), process.num_fds()
    running = {"container_state": "running"}
    own = [
        Measure("kubelet_node_name", "gauge", "The node's name. The count is always 1.", 1, {"node": node}),
        Measure("kubelet_running_containers", "gauge", "Number of containers currently running", running_containers, running),
        Measure("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox", running_pods),
        Measure("kubernetes_build_info", "gauge", "A metric with a constant '1' value", 1, {"git_version": version}),
        Measure("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu),
        Measure("process_open_fds", "gauge", "Number of open file descriptors.", files),
        Measure("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", memory.rss),
        Measure("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", began),
        Measure("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", memory.vms),
    ]  # fmt: skip
    families = itertools.groupby((*own, *counted), key=lambda each: (each.name, each.kind, each.text))
    for (name, kind, text), samples in families:
        page.family(name, kind, text, [(each.labels, each.value, 0) for each in samples])
    return page.text()
