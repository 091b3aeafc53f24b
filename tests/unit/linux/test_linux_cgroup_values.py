"""One table of limits and figures for v1 and v2: the files each writes and reads, in folders that stand for hierarchies."""

from __future__ import annotations

from pathlib import Path

import pytest

from minikube_raw.linux import cgroup_mounts
from minikube_raw.linux.cgroup_mounts import Hierarchies
from minikube_raw.linux.cgroups import Cgroup, DeviceRule, Limits, Transfers, v2
from minikube_raw.linux.cgroups.device_programme import assemble

Files = dict[str, str]

V1_FILES: dict[str, Files] = {
    "cpu": {"cpu.shares": "1024", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "cpu.stat": ""},
    "cpuset": {"cpuset.cpus": "0-1", "cpuset.mems": "0"},
    "memory": {"memory.limit_in_bytes": "9223372036854771712", "memory.memsw.limit_in_bytes": "9223372036854771712"},
    "pids": {"pids.max": "max"},
    "hugetlb": {"hugetlb.2MB.limit_in_bytes": "9223372036854771712"},
}
V2_FILES: Files = {
    "cpu.weight": "100",
    "cpu.max": "max 100000",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.min": "0",
    "memory.low": "0",
    "memory.high": "max",
    "memory.oom.group": "0",
    "pids.max": "max",
    "hugetlb.2MB.max": "max",
    "cgroup.controllers": "cpu cpuset hugetlb memory pids",
}


def fill(directory: Path, files: Files) -> None:
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_text(content + "\n")


@pytest.fixture
def on_v1(tmp_path: Path) -> Cgroup:
    for controller, files in V1_FILES.items():
        fill(tmp_path / controller / "pod", files)
    return Cgroup("pod", Hierarchies({controller: str(tmp_path / controller) for controller in V1_FILES}))


@pytest.fixture
def on_v2(tmp_path: Path) -> Cgroup:
    fill(tmp_path / "unified/pod", V2_FILES)
    return Cgroup(
        "pod",
        Hierarchies({}, str(tmp_path / "unified"), frozenset(("cpu", "cpuset", "hugetlb", "memory", "pids", "io"))),
    )


def changed(group: Cgroup, before: Files) -> Files:
    """Returns the files whose first line is another one; a folder's file keeps what a shorter line did not cover."""
    files = {path.name: path.read_text() for directory in group.directories for path in Path(directory).iterdir()}
    lines = {name: content.partition("\n")[0] for name, content in files.items()}
    return {name: line for name, line in lines.items() if line != before[name]}


MIB64 = 64 << 20
CASES = [
    pytest.param(Limits(), {}, {}, id="nothing"),
    pytest.param(Limits(cpu_shares=512), {"cpu.shares": "512"}, {"cpu.weight": "20"}, id="half a cpu of shares"),
    pytest.param(Limits(cpu_shares=0), {"cpu.shares": "2"}, {"cpu.weight": "1"}, id="the least shares"),
    pytest.param(Limits(cpu_shares=262_144), {"cpu.shares": "262144"}, {"cpu.weight": "10000"}, id="the most shares"),
    pytest.param(
        Limits(cpu_quota=50_000, cpu_period=200_000),
        {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "200000"},
        {"cpu.max": "50000 200000"},
        id="quota and period",
    ),
    pytest.param(
        Limits(cpu_quota=50_000), {"cpu.cfs_quota_us": "50000"}, {"cpu.max": "50000 100000"}, id="quota alone"
    ),
    pytest.param(
        Limits(cpu_period=50_000), {"cpu.cfs_period_us": "50000"}, {"cpu.max": "max 50000"}, id="period alone"
    ),
    pytest.param(Limits(cpuset_cpus="1"), {"cpuset.cpus": "1"}, {"cpuset.cpus": "1"}, id="cpuset"),
    pytest.param(
        Limits(memory_limit=MIB64),
        {"memory.limit_in_bytes": str(MIB64), "memory.memsw.limit_in_bytes": str(MIB64)},
        {"memory.max": str(MIB64), "memory.swap.max": "0"},
        id="memory without swap",
    ),
    pytest.param(
        Limits(memory_limit=MIB64, swap_limit=MIB64),
        {"memory.limit_in_bytes": str(MIB64), "memory.memsw.limit_in_bytes": str(2 * MIB64)},
        {"memory.max": str(MIB64), "memory.swap.max": str(MIB64)},
        id="memory and swap",
    ),
    pytest.param(
        Limits(swap_limit=MIB64),
        {},
        {"memory.swap.max": str(MIB64)},
        id="swap alone",
    ),
    pytest.param(
        Limits(memory_limit=MIB64, swap_limit=-1),
        {"memory.limit_in_bytes": str(MIB64), "memory.memsw.limit_in_bytes": "-1"},
        {"memory.max": str(MIB64)},
        id="memory and any swap",
    ),
    pytest.param(
        Limits(memory_limit=-1),
        {"memory.limit_in_bytes": "-1", "memory.memsw.limit_in_bytes": "-1"},
        {},
        id="memory without limit",
    ),
    pytest.param(
        Limits(hugetlb={"2MB": 4 << 20}),
        {"hugetlb.2MB.limit_in_bytes": "4194304"},
        {"hugetlb.2MB.max": "4194304"},
        id="huge pages",
    ),
    pytest.param(Limits(pids_limit=10), {"pids.max": "10"}, {"pids.max": "10"}, id="pids"),
    pytest.param(Limits(cpu_quota=-1, pids_limit=0), {}, {}, id="limits lifted are the kernel's defaults"),
    pytest.param(Limits(pids_limit=-1), {}, {}, id="no pids limit"),
    pytest.param(
        Limits.for_node(cpus=1.5, memory=MIB64),
        {
            "cpu.shares": "1536",
            "cpu.cfs_quota_us": "150000",
            "memory.limit_in_bytes": str(MIB64),
            "memory.memsw.limit_in_bytes": str(MIB64),
        },
        {"cpu.weight": "59", "cpu.max": "150000 100000", "memory.max": str(MIB64), "memory.swap.max": "0"},
        id="a node of a CPU and a half",
    ),
]


@pytest.mark.parametrize(("limits", "v1_files", "v2_files"), CASES)
def test_a_limit_means_the_same_in_both_versions(
    on_v1: Cgroup, on_v2: Cgroup, limits: Limits, v1_files: Files, v2_files: Files
) -> None:
    assert on_v1.set_limits(limits) == []
    assert on_v2.set_limits(limits) == []
    assert changed(on_v1, {name: line for files in V1_FILES.values() for name, line in files.items()}) == v1_files
    assert changed(on_v2, V2_FILES) == v2_files


def test_a_limit_without_counterpart_is_named_not_swallowed(on_v1: Cgroup, on_v2: Cgroup) -> None:
    limits = Limits(memory_min=4096, memory_low=2048, memory_high=8192, oom_group=True)
    assert on_v1.set_limits(limits) == ["memory_min", "memory_low", "memory_high", "oom_group"]
    assert on_v2.set_limits(limits) == []
    assert on_v1.set_limits(Limits(hugetlb={"1GB": 0})) == on_v2.set_limits(Limits(hugetlb={"1GB": 0})) == ["hugetlb"]
    assert changed(on_v2, V2_FILES) == {
        "memory.min": "4096",
        "memory.low": "2048",
        "memory.high": "8192",
        "memory.oom.group": "1",
    }


def test_a_limit_of_a_controller_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "memory/pod", V1_FILES["memory"])
    group = Cgroup("pod", Hierarchies({"memory": str(tmp_path / "memory")}))
    assert group.set_limits(Limits(cpu_shares=2, pids_limit=1, memory_limit=MIB64)) == ["cpu_shares", "pids_limit"]


def test_a_host_without_swap_accounting_still_limits_memory(tmp_path: Path) -> None:
    fill(tmp_path / "v1/pod", {"memory.limit_in_bytes": "0"})
    fill(tmp_path / "v2/pod", {"memory.max": "max"})
    v1 = Cgroup("pod", Hierarchies({"memory": str(tmp_path / "v1")}))
    v2 = Cgroup("pod", Hierarchies({}, str(tmp_path / "v2"), frozenset(("memory",))))
    assert v1.set_limits(Limits(memory_limit=MIB64)) == v2.set_limits(Limits(memory_limit=MIB64)) == []
    assert changed(v1, {"memory.limit_in_bytes": "0"}) == {"memory.limit_in_bytes": str(MIB64)}
    assert changed(v2, {"memory.max": "max"}) == {"memory.max": str(MIB64)}


def test_the_same_use_reads_the_same_in_both_versions(tmp_path: Path) -> None:
    v1_use = {
        "cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 5000000",
        "cpu.cfs_quota_us": "150000",
        "cpu.cfs_period_us": "100000",
        "cpuacct.usage": "7000000",
        "memory.usage_in_bytes": "1000",
        "memory.max_usage_in_bytes": "2000",
        "memory.limit_in_bytes": "4096",
        "memory.memsw.limit_in_bytes": "4608",
        "memory.stat": "inactive_file 1\nrss 2\ntotal_rss 600\ntotal_inactive_file 300\ntotal_cache 400\n"
        "total_pgfault 50\ntotal_pgmajfault 5\ntotal_swap 10",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
        "pids.current": "4",
        "blkio.throttle.io_service_bytes_recursive": "254:0 Read 8192\n254:0 Write 4096\n254:0 Total 12288\nTotal 12288",
        "blkio.throttle.io_serviced_recursive": "254:0 Read 2\n254:0 Write 1\n254:0 Total 3\nTotal 3",
    }
    v2_use = {
        "cpu.stat": "usage_usec 7000\nuser_usec 1\nthrottled_usec 5000\nnr_periods 3\nnr_throttled 1",
        "cpu.max": "150000 100000",
        "memory.current": "1000",
        "memory.peak": "2000",
        "memory.max": "4096",
        "memory.stat": "anon 600\ninactive_file 300\nfile 400\npgfault 50\npgmajfault 5",
        "memory.swap.current": "10",
        "memory.swap.max": "512",
        "memory.events.local": "oom 3\noom_kill 2",
        "pids.current": "4",
        "io.stat": "254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0",
    }
    fill(tmp_path / "v1/pod", v1_use)
    fill(tmp_path / "v2/pod", v2_use)
    on_v1 = Cgroup(
        "pod", Hierarchies(dict.fromkeys(("cpu", "cpuacct", "memory", "pids", "blkio"), str(tmp_path / "v1")))
    )
    on_v2 = Cgroup("pod", Hierarchies({}, str(tmp_path / "v2"), frozenset(("cpu", "memory", "pids", "io"))))
    stats = on_v1.stats()
    assert stats == on_v2.stats()
    assert stats.as_dict() == {
        "cpu_limit": 1.5,
        "cpu_periods": 3,
        "cpu_throttled_ns": 5_000_000,
        "cpu_throttled_periods": 1,
        "cpu_usage_ns": 7_000_000,
        "memory_cache": 400,
        "memory_limit": 4096,
        "memory_peak": 2000,
        "memory_rss": 600,
        "memory_usage": 1000,
        "memory_working_set": 700,
        "oom_kills": 2,
        "page_faults": 50,
        "page_faults_major": 5,
        "pids": 4,
        "swap_limit": 512,
        "swap_usage": 10,
        "transfers": {"254:0": Transfers(8192, 4096, 2, 1)},
    }
    assert on_v1.oom_kills() == on_v2.oom_kills() == 2


def test_figures_that_nobody_counts_are_none(tmp_path: Path) -> None:
    fill(tmp_path / "pod", {})
    stats = Cgroup("pod", Hierarchies({}, str(tmp_path))).stats()
    assert set(stats.as_dict().values()) == {None}


def test_on_v2_controllers_are_handed_down_to_the_parent_and_not_by_the_leaf(tmp_path: Path) -> None:
    for name in (".", "node", "node/pod"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "cgroup.subtree_control").write_text("")
    (tmp_path / "node/pod/cgroup.controllers").write_text("")
    group = Cgroup("node/pod", Hierarchies({}, str(tmp_path), frozenset(("memory", "pids", "hugetlb"))))
    group.create()
    handed_down = {name: (tmp_path / name / "cgroup.subtree_control").read_text() for name in (".", "node", "node/pod")}
    assert handed_down == {".": "+hugetlb +memory +pids\n", "node": "+hugetlb +memory +pids\n", "node/pod": ""}


def test_on_a_hybrid_host_nothing_is_handed_down_that_v1_limits(tmp_path: Path) -> None:
    for name in ("unified/pod", "memory/pod"):
        (tmp_path / name).mkdir(parents=True)
    group = Cgroup("pod", Hierarchies({"memory": f"{tmp_path}/memory"}, f"{tmp_path}/unified", frozenset(("memory",))))
    group.create()
    assert not (tmp_path / "unified/cgroup.subtree_control").exists()


@pytest.mark.parametrize("shares", [2, 3, 51, 102, 512, 1024, 2048, 262_144])
def test_weights_follow_the_kubelets_formula(shares: int) -> None:
    assert v2.weight(shares) == 1 + ((shares - 2) * 9999) // 262_142


V1_LINE = "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
MEMORY_LINE = "34 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
NAMED_LINE = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"
UNIFIED_LINE = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
V2_LINE = "41 31 0:38 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"
OTHER_LINE = "22 1 8:1 / / rw,relatime - ext4 /dev/vda1 rw"


@pytest.mark.parametrize(
    ("lines", "mode", "roots"),
    [
        pytest.param([OTHER_LINE, V2_LINE], "v2", ["/sys/fs/cgroup"], id="v2"),
        pytest.param([V2_LINE, NAMED_LINE], "v2", ["/sys/fs/cgroup"], id="v2 beside a named hierarchy"),
        pytest.param(
            [V1_LINE, MEMORY_LINE, NAMED_LINE],
            "v1",
            ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"],
            id="v1 with controllers mounted together",
        ),
        pytest.param(
            [V1_LINE, UNIFIED_LINE], "hybrid", ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct"], id="hybrid"
        ),
        pytest.param(
            [UNIFIED_LINE, MEMORY_LINE, MEMORY_LINE.replace("/sys/fs", "/copy"), UNIFIED_LINE.replace("/sys", "/copy")],
            "hybrid",
            ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"],
            id="the first of several mounts counts",
        ),
    ],
)
def test_the_layout_is_read_from_the_mounts(lines: list[str], mode: str, roots: list[str]) -> None:
    found = cgroup_mounts.parse_mountinfo("\n".join(lines) + "\n")
    assert found.mode == mode
    assert found.roots() == roots


def test_a_host_without_cgroups_is_said_to_have_none() -> None:
    none = cgroup_mounts.parse_mountinfo(OTHER_LINE)
    with pytest.raises(FileNotFoundError, match="no cgroup hierarchy is mounted"):
        _ = none.mode
    with pytest.raises(FileNotFoundError):
        Cgroup("pod", none)


@pytest.mark.parametrize(("kind", "access"), [("x", "r"), ("c", ""), ("c", "rx"), ("", "r")])
def test_a_device_rule_that_means_nothing_is_refused(kind: str, access: str) -> None:
    with pytest.raises(ValueError):
        DeviceRule(kind, access=access)


def test_a_device_rule_is_written_as_v1_reads_it() -> None:
    rules = [DeviceRule("a"), DeviceRule("c", 1, 3, "rw"), DeviceRule("b", 8), DeviceRule("c", None, 0)]
    assert [str(rule) for rule in rules] == ["a *:* rwm", "c 1:3 rw", "b 8:* rwm", "c *:0 rwm"]


def test_the_programme_of_no_rules_says_no() -> None:
    assert assemble(())[-16:] == bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))
