"""Bad input gets an error that says what is wrong, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.clusters import KUBECTLS, Cluster

from .manifests import pod
from .waiting import until

Apply = Callable[..., str]

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: {value}}}\n"
REFUSED = [
    pytest.param("apiVersion: v1\nkind: Pod\n  metadata: {", "error parsing", id="malformed YAML"),
    pytest.param(pod("x", spec="replicas: 3"), 'unknown field "spec.replicas"', id="an unknown field"),
    pytest.param(
        pod("x", container="resources: {limits: {memory: -1Mi}}"),
        "must be greater than or equal to 0",
        id="a negative quantity",
    ),
    pytest.param(
        pod("x", container="resources: {limits: {cpu: banana}}"), "quantities must match", id="a quantity that is none"
    ),
    pytest.param(CONFIG.format(name="n" * 300, value="v"), "must be no more than 253", id="a name of 300 characters"),
    pytest.param(CONFIG.format(name="x", value="v" * (5 << 20)), "", id="an object of 5 MB"),
    pytest.param("apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n", "no matches for kind", id="an unknown kind"),
]


@pytest.mark.parametrize(("manifest", "says"), REFUSED)
def test_kubectl_prints_why_it_was_refused(cluster: Cluster, namespace: str, manifest: str, says: str) -> None:
    done = cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=manifest, check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.get("-n", namespace, "pods")["items"] == []


def waiting(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """Why the first container waits."""
    statuses = cluster.get("-n", namespace, "pod", name)["status"].get("containerStatuses", [{}])
    return dict(statuses[0].get("state", {}).get("waiting", {}))


def test_an_image_that_does_not_exist_is_named_in_reason_and_event(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    apply(pod("lost").replace("image: busybox", "image: no-such-image"))
    until(
        lambda: waiting(cluster, namespace, "lost"),
        lambda state: (
            state.get("reason") in ("ErrImagePull", "ImagePullBackOff") and "no-such-image" in state.get("message", "")
        ),
        seconds=60,
    )
    events = cluster.kubectl("-n", namespace, "get", "events", "--field-selector=reason=Failed").stdout
    assert "no-such-image" in events


def test_a_command_that_does_not_exist_is_named(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("typo", spec="restartPolicy: Never").replace("command: [sh, -c, ", "command: [no-such-command, "))
    status = until(
        lambda: cluster.get("-n", namespace, "pod", "typo")["status"], lambda s: s.get("phase") == "Failed", seconds=60
    )
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert ended["reason"] == "StartError"
    assert ended["exitCode"] == 128
    assert "no-such-command" in ended["message"]


def test_a_pod_that_fits_nowhere_says_so_per_node(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("huge", container="resources: {requests: {cpu: 1000}}"))
    condition = until(
        lambda: cluster.get("-n", namespace, "pod", "huge")["status"].get("conditions", [{}])[0],
        lambda found: found.get("reason") == "Unschedulable",
        seconds=60,
    )
    assert condition["message"].startswith("0/3 nodes are available: 3 Insufficient cpu.")
    events = cluster.kubectl("-n", namespace, "get", "events", "--field-selector=reason=FailedScheduling").stdout
    assert "3 Insufficient cpu" in events


def test_an_unknown_client_gets_401_and_an_unauthorised_one_403(cluster: Cluster) -> None:
    anonymous = cluster.kubectl("--kubeconfig=/dev/null", *server(cluster), "get", "pods", "--token=none", check=False)
    assert "You must be logged in to the server" in anonymous.stderr
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    pki = cluster.folder / "state/clusters/minikube-raw/pki"
    identity = (f"--client-certificate={pki}/node-{node}.crt", f"--client-key={pki}/node-{node}.key")
    forbidden = cluster.kubectl("--kubeconfig=/dev/null", *server(cluster), *identity, "create", "ns", "x", check=False)
    assert "Forbidden" in forbidden.stderr
    assert f'User "system:node:{node}" cannot create resource "namespaces"' in forbidden.stderr


@pytest.mark.parametrize("binary", KUBECTLS)
def test_what_cannot_be_done_is_said_in_kubernetes_words(
    cluster: Cluster, namespace: str, apply: Apply, binary: str | None
) -> None:
    apply(pod("done", "exit 1"))
    until(
        lambda: waiting(cluster, namespace, "done"), lambda state: state.get("reason") == "CrashLoopBackOff", seconds=60
    )
    refusals = {
        ("exec", "done", "--", "ls"): 'error: unable to upgrade connection: container not found ("main")',
        ("exec", "done", "-c", "nope", "--", "ls"): "container nope is not valid for pod done",
        ("get", "pods", "--as=jane"): 'pods is forbidden: User "jane" cannot list resource "pods" in API group ""',
        ("create", "-f", "-"): 'no matches for kind "Nothing" in version "v1"',
        ("get", "pods", "--field-selector=a=b"): "field label not supported: a",
    }
    for words, says in refusals.items():
        nothing = "apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n"
        done = cluster.kubectl("-n", namespace, *words, stdin=nothing, check=False, binary=binary)
        assert done.returncode == 1, words
        assert says in done.stderr, words


def server(cluster: Cluster) -> tuple[str, ...]:
    """Where the API is, for a kubectl without kubeconfig."""
    return (
        "--server=https://127.0.0.1:6443",
        f"--certificate-authority={cluster.folder}/state/clusters/minikube-raw/pki/ca.crt",
    )


def test_a_second_cluster_on_the_same_port_is_refused_with_a_cure(cluster: Cluster) -> None:
    done = cluster.cli("up", "--name", "other", check=False)
    assert done.returncode == 1
    assert "port 6443" in done.stderr
    assert "--api-port" in done.stderr
    assert not (cluster.folder / "state/clusters/other").exists()


def test_without_root_up_says_so(cluster: Cluster) -> None:
    def become_nobody() -> None:
        os.setgid(65534)
        os.setuid(65534)

    command = [sys.executable, "-m", "minikube_raw", "up"]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, preexec_fn=become_nobody)
    assert done.returncode == 1
    assert "needs root" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_cluster_does_not_take_the_first_ones_pods_from_the_host(cluster: Cluster) -> None:
    routes = ["ip", "route", "show", "10.244.0.0/24"]
    before = subprocess.run(routes, capture_output=True, text=True, check=True).stdout
    assert before
    done = cluster.cli("up", "--name", "second", "--api-port", "6459", check=False)
    assert done.returncode == 1
    assert "--pod-cidr 10.244.0.0/16: 10.244." in done.stderr
    assert "give this one a network of its own" in done.stderr
    assert subprocess.run(routes, capture_output=True, text=True, check=True).stdout == before
