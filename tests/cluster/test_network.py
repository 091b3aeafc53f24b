"""Pods reach each other by their own addresses, wherever they run, and the host reaches every pod."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.clusters import Cluster

from .manifests import pod
from .waiting import until

Apply = Callable[..., str]


def address(cluster: Cluster, namespace: str, name: str) -> str:
    """The pod's IP."""
    return str(cluster.get("-n", namespace, "pod", name)["status"]["podIP"])


def connects(ip: str) -> bool:
    """Whether the pod's web server takes a connection from the host."""
    try:
        with socket.create_connection((ip, 80), timeout=5):
            return True
    except ConnectionRefusedError:
        return False


@pytest.fixture
def pods(cluster: Cluster, namespace: str, apply: Apply) -> Iterator[str]:
    """Pods a1 and a2 on the first node, b on the second, each with a web server that prints its client's address."""
    cgi = r'mkdir -p /www/cgi-bin && printf "#!/bin/sh\necho; echo \$REMOTE_ADDR\n" > /www/cgi-bin/who && chmod +x /www/cgi-bin/who'
    script = f"{cgi} && exec httpd -f -p 80 -h /www"
    nodes = [node["metadata"]["name"] for node in cluster.get("nodes")["items"]]
    for name, node in (("a1", nodes[0]), ("a2", nodes[0]), ("b", nodes[1])):
        apply(pod(name, script, node=node))
    cluster.kubectl("-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=50s")
    return iter([namespace])


@pytest.mark.parametrize(("client", "server"), [("a1", "a2"), ("a1", "b"), ("b", "a1"), ("a1", "a1")])
def test_pods_see_each_others_real_addresses(cluster: Cluster, pods: Iterator[str], client: str, server: str) -> None:
    namespace = next(pods)
    target = address(cluster, namespace, server)
    url = f"http://{target}/cgi-bin/who"
    seen = cluster.kubectl("-n", namespace, "exec", client, "--", "timeout", "5", "wget", "-qO-", url).stdout.strip()
    assert seen.strip("[]").removeprefix("::ffff:") == address(cluster, namespace, client)


def test_large_packets_cross_the_overlay(cluster: Cluster, pods: Iterator[str]) -> None:
    namespace = next(pods)
    write = "dd if=/dev/zero of=/www/big bs=1M count=8 2>/dev/null"
    cluster.kubectl("-n", namespace, "exec", "b", "--", "sh", "-c", write)
    fetch = f"timeout 20 wget -qO- http://{address(cluster, namespace, 'b')}/big | wc -c"
    assert cluster.kubectl("-n", namespace, "exec", "a1", "--", "sh", "-c", fetch).stdout.strip() == str(8 << 20)


def test_the_host_reaches_every_pod(cluster: Cluster, pods: Iterator[str]) -> None:
    namespace = next(pods)
    for name in ("a1", "a2", "b"):
        ip = address(cluster, namespace, name)
        until(lambda ip=ip: connects(ip), bool, seconds=60)  # a pod without a probe is Ready before its server listens


def test_what_somebody_deletes_on_a_node_is_made_again(cluster: Cluster, pods: Iterator[str]) -> None:
    namespace = next(pods)
    node = cluster.get("-n", namespace, "pod", "a1")["spec"]["nodeName"]
    inside = ["nsenter", "--net", "--target", str(cluster.pid("machine", node))]
    for command in (["ip", "link", "delete", "vxlan.1"], ["nft", "flush", "ruleset"]):
        subprocess.run([*inside, *command], check=True)

    def repaired() -> bool:
        url = f"http://{address(cluster, namespace, 'b')}/cgi-bin/who"
        fetch = ["exec", "a1", "--", "timeout", "1", "wget", "-qO-", url]
        rules = subprocess.run([*inside, "nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        return cluster.kubectl("-n", namespace, *fetch, check=False).returncode == 0 and "masquerade" in rules

    until(repaired, bool, seconds=60)


def test_a_dropping_forward_chain_on_the_host_does_not_cut_nodes_apart(cluster: Cluster, pods: Iterator[str]) -> None:
    namespace = next(pods)
    chain = "table inet other { chain forward { type filter hook forward priority 0; policy drop; }; }"
    subprocess.run(["nft", "-f", "-"], input=chain, text=True, check=True)
    try:
        url = f"http://{address(cluster, namespace, 'b')}/cgi-bin/who"
        seen = cluster.kubectl("-n", namespace, "exec", "a1", "--", "timeout", "5", "wget", "-qO-", url).stdout.strip()
        assert seen.strip("[]").removeprefix("::ffff:") == address(cluster, namespace, "a1")
    finally:
        subprocess.run(["nft", "delete", "table", "inet", "other"], check=True)
