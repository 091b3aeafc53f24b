"""What a pod of the cluster went through can be shown."""

from __future__ import annotations

import json

from tests.clusters import Cluster

from .manifests import pod


def test_a_pod_of_the_cluster_can_be_traced(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=pod("traced"))
    cluster.kubectl("-n", namespace, "wait", "pod/traced", "--for=condition=Ready", "--timeout=50s")
    trace = json.loads(cluster.cli("trace", "pod", f"{namespace}/traced", "-o", "json").stdout)
    assert {"pivot_root", "netlink", "mkdir"} <= {step["what"] for step in trace["steps"]}
