"""The command line on one host: up, stop, start and down again, and pods without any master."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import host
from tests.cluster.manifests import TWO_CONTAINERS, WEB, pod
from tests.cluster.waiting import until
from tests.clusters import Cluster, need_root_and_loopback


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Cluster]:
    """An installation of its own; afterwards the host must be as it was before."""
    need_root_and_loopback()
    lone = Cluster(tmp_path)
    before = host.snapshot()
    yield lone
    lone.cli("down", "--name", "lone", check=False)
    assert host.difference(before, host.snapshot()) == {}


def master_pid(lone: Cluster) -> int:
    """The master as the host sees it."""
    status = json.loads(lone.cli("status", "--name", "lone", "-o", "json").stdout)
    return next(int(p["pid"]) for p in status["processes"] if p["role"] == "master")


UP = ("up", "--name", "lone", "--api-port", "16443", "--pod-cidr", "10.200.0.0/16")


def test_up_with_the_sample_runs_it_and_says_what_to_try(lone: Cluster) -> None:
    done = lone.cli(*UP, "--sample")
    assert "1 node is Ready" in done.stdout
    assert "kubectl get pods" in done.stdout
    lone.kubectl("rollout", "status", "deploy/hello", "--timeout=50s")
    assert lone.kubectl("config", "current-context").stdout == "lone\n"


def test_up_twice_brings_back_what_is_missing_and_changes_nothing_else(lone: Cluster) -> None:
    lone.cli(*UP)
    lone.kubectl("create", "-f", "-", stdin=pod("kept"))
    again = lone.cli(*UP)
    assert "exists" in again.stdout
    assert lone.kubectl("get", "pod", "kept", "-o", "name").stdout == "pod/kept\n"
    other_size = lone.cli(*UP, "--nodes", "2", check=False)
    assert (other_size.returncode, "exists with 1 nodes" in other_size.stderr) == (1, True)


def test_stop_and_start_bring_workloads_back(lone: Cluster) -> None:
    lone.cli(*UP)
    lone.kubectl("apply", "-f", "-", stdin=WEB)
    lone.kubectl("rollout", "status", "deploy/web", "--timeout=50s")
    lone.cli("stop", "--name", "lone")
    assert json.loads(lone.cli("status", "--name", "lone", "-o", "json").stdout)["processes"] == []
    lone.cli("start", "--name", "lone")
    until(
        lambda: lone.get("deploy", "web")["status"].get("readyReplicas"),
        lambda ready: ready == 3,
        seconds=60,
        pause=0.2,
    )


def test_start_right_after_the_master_was_told_to_end_starts_another(lone: Cluster) -> None:
    lone.cli(*UP)
    os.kill(master_pid(lone), signal.SIGTERM)
    lone.cli("start", "--name", "lone")
    assert lone.kubectl("get", "nodes", "-o", "name").stdout == "node/lone-1\n"


def test_status_names_every_process_with_its_role(lone: Cluster) -> None:
    lone.cli(*UP)
    lone.kubectl("create", "-f", "-", stdin=pod("p"))
    lone.kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=50s")
    status = json.loads(lone.cli("status", "--name", "lone", "-o", "json").stdout)
    roles = {process["role"]: process for process in status["processes"]}
    assert set(roles) == {"master", "machine", "kubelet", "launcher", "keeper"}
    assert roles["master"]["node"] is None
    assert roles["kubelet"]["node"] == "lone-1"
    assert all(os.path.exists(f"/proc/{p['pid']}") and p["rss_bytes"] > 1 << 20 for p in status["processes"])


def test_loops_that_others_wait_for_go_first(lone: Cluster) -> None:
    lone.cli(*UP)
    status = json.loads(lone.cli("status", "--name", "lone", "-o", "json").stdout)
    nice = {process["role"]: os.getpriority(os.PRIO_PROCESS, process["pid"]) for process in status["processes"]}
    assert nice["master"] == nice["kubelet"] == -10
    assert nice["launcher"] == nice["keeper"] == nice["machine"] == os.getpriority(os.PRIO_PROCESS, 0)


def test_limits_of_a_node_are_its_capacity(lone: Cluster) -> None:
    lone.cli(*UP, "--node-cpus", "0.5", "--node-memory", "512Mi")
    capacity = lone.get("node", "lone-1")["status"]["capacity"]
    assert (capacity["cpu"], capacity["memory"]) == ("500m", "512Mi")


def test_a_damaged_cluster_record_does_not_keep_down_from_its_work(lone: Cluster) -> None:
    lone.cli(*UP)
    record = lone.folder / "state/clusters/lone/cluster.json"
    record.write_bytes(record.read_bytes()[:50])
    lone.cli("down", "--name", "lone")
    assert not record.exists()


def test_down_removes_a_cluster_that_no_record_describes_any_more(lone: Cluster) -> None:
    before = host.snapshot()["sysctls"]
    lone.cli(*UP, "--nodes", "2")
    lone.kubectl("create", "-f", "-", stdin=pod("p"))
    lone.kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=50s")
    records = [lone.folder / "state/clusters/lone/cluster.json", *(lone.folder / "run").rglob("*.json")]
    assert {each.name for each in records} >= {"cluster.json", "master.process.json", "machine-lone-1.process.json"}
    for record in records:
        record.write_bytes(record.read_bytes()[:30])

    done = lone.cli("down", "--name", "lone")

    assert f"{records[0].name} is not a cluster record" in done.stdout
    assert not records[0].exists()
    assert not (lone.folder / "kubeconfig").exists()
    (forwarding,) = before
    Path("/proc/sys/net/ipv4/ip_forward").write_text(forwarding)  # nobody but the record knew


def test_without_overlayfs_up_refuses_before_it_makes_anything(lone: Cluster) -> None:
    lone.environment["MINIKUBE_RAW_NO_OVERLAY"] = "1"
    done = lone.cli(*UP, check=False)
    assert done.returncode == 1
    assert "cannot mount overlayfs" in done.stderr
    assert "modprobe overlay" in done.stderr
    del lone.environment["MINIKUBE_RAW_NO_OVERLAY"]
    assert not (lone.folder / "state").exists()


def test_in_a_network_namespace_without_loopback_up_refuses_before_it_makes_anything(lone: Cluster) -> None:
    command = ["unshare", "-n", sys.executable, "-m", "minikube_raw", *UP]
    done = subprocess.run(command, env=lone.environment, capture_output=True, text=True)
    assert done.stderr.splitlines() == [
        "minikube-raw: nothing can be reached on 127.0.0.1: Network is unreachable",
        "  ip link set lo up",
    ]
    assert not (lone.folder / "state").exists()


def test_up_names_a_chain_that_will_drop_egress(lone: Cluster) -> None:
    chain = "table inet strict { chain forward { type filter hook forward priority 0; policy drop; }; }"
    subprocess.run(["nft", "-f", "-"], input=chain, text=True, check=True)
    try:
        assert "nftables chain inet strict forward drops" in lone.cli(*UP).stdout
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "strict"], check=True)


def test_a_pod_runs_without_a_master_and_leaves_nothing(lone: Cluster, tmp_path: Path) -> None:
    manifest = tmp_path / "pair.yaml"
    manifest.write_text(TWO_CONTAINERS)
    lone.cli("pod", "run", "-f", str(manifest))
    listed = json.loads(lone.cli("pod", "list", "-o", "json").stdout)
    assert "pair" in json.dumps(listed)
    until(
        lambda: lone.cli("pod", "logs", "pair", "-c", "client").stdout,
        lambda t: t.count("from-server") == 2,
        seconds=60,
    )
    refused = lone.cli("pod", "exec", "pair", "-c", "client", "--", "sh", "-c", "exit 5", check=False)
    assert refused.returncode == 5
    trace = json.loads(lone.cli("trace", "pod", "default/pair", "-o", "json").stdout)
    assert trace["start_ms"] > 0
    assert {"at_ms", "took_ms", "what", "object"} <= set(trace["steps"][0])
    assert {"pivot_root", "clone", "netlink"} <= {step["what"] for step in trace["steps"]}
    lone.cli("pod", "rm", "pair")
    lone.cli("image", "rm", "busybox")
