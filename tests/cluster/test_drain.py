"""A node is emptied with kubectl: its pods are given their grace, what nobody would bring back is refused, others take over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.clusters import KUBECTLS, Cluster

from .manifests import pod
from .waiting import until

Apply = Callable[..., str]
SAYS_GOODBYE = (
    "trap 'sleep 1; echo goodbye > /dev/termination-log; exit 0' TERM; touch /ready; while true; do sleep 0.1; done"
)
READY = "readinessProbe: {exec: {command: [ls, /ready]}, periodSeconds: 1}"
TWO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: two}
spec:
  replicas: 2
  selector: {matchLabels: {app: two}}
  template:
    metadata: {labels: {app: two, test: pod}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
"""


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """The name of a node; afterwards it takes pods again."""
    name = cluster.get("nodes")["items"][0]["metadata"]["name"]
    yield name
    cluster.kubectl("uncordon", name)


def nodes(cluster: Cluster, namespace: str) -> list[str]:
    """Where the running pods of a namespace are."""
    items = cluster.get("-n", namespace, "pods")["items"]
    return [each["spec"]["nodeName"] for each in items if "deletionTimestamp" not in each["metadata"]]


@pytest.mark.slow
@pytest.mark.parametrize("binary", KUBECTLS)
def test_drain_empties_a_node_within_the_grace_that_it_is_given(
    cluster: Cluster, namespace: str, apply: Apply, node: str, binary: str | None
) -> None:
    apply(
        pod("alone", SAYS_GOODBYE, node=node, spec="terminationGracePeriodSeconds: 600", container=READY).replace(
            "  terminationGracePeriodSeconds: 1\n", ""
        )
    )
    cluster.kubectl("-n", namespace, "wait", "pod/alone", "--for=condition=Ready", "--timeout=50s")
    drain = ("drain", node, "--pod-selector=test=pod", "--timeout=50s")

    refused = cluster.kubectl(*drain, check=False, binary=binary)
    assert refused.returncode
    assert "use --force to override" in refused.stderr
    assert cluster.get("node", node)["spec"]["unschedulable"]

    done = cluster.kubectl(*drain, "--force", "--grace-period=3", binary=binary)
    assert "pod/alone " in done.stdout
    assert cluster.get("-n", namespace, "pods")["items"] == []


@pytest.mark.slow
def test_pods_of_a_drained_node_come_back_on_others_and_on_it_when_it_is_uncordoned(
    cluster: Cluster, namespace: str, apply: Apply, node: str
) -> None:
    apply(TWO)
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/two", "--timeout=60s")

    cluster.kubectl("drain", node, "--pod-selector=app=two", "--timeout=60s")
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/two", "--timeout=60s")
    assert node not in nodes(cluster, namespace)

    cluster.kubectl("uncordon", node)
    apply(pod("welcome", node=node))
    cluster.kubectl("-n", namespace, "wait", "pod/welcome", "--for=condition=Ready", "--timeout=50s")
    until(lambda: nodes(cluster, namespace), lambda found: node in found, seconds=60)
