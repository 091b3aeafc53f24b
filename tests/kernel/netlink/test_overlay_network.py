"""Nodes as network namespaces on one bridge: pods behind bridges reach each other over VXLAN, and nothing stays broken."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from minikube_raw.cni import Network
from minikube_raw.kubelet.overlaynet import OverlayNetwork, conflist
from minikube_raw.netlink import addresses, links, overlay, routes
from minikube_raw.netlink.overlay import Peer
from minikube_raw.netlink.routes import Route
from netplugins.carrier import wait_until_up
from tests.netns import NetworkNamespace

pytestmark = pytest.mark.root
UNDERLAY = "10.243.0.0/24"
PODS = "10.244.0.0/16"


class Node:
    """One node of the test's cluster."""

    def __init__(self, number: int, underlay: NetworkNamespace, cache_dir) -> None:
        self.name = f"node-{number}"
        self.ip = f"10.243.0.{10 + number}"
        self.pod_cidr = f"10.244.{number}.0/24"
        self.netns = NetworkNamespace()
        bridge = underlay.query(lambda netlink: links.ensure_bridge(netlink, "underlay"))
        underlay.request(
            links.add_veth(self.name, peer_name="eth0", peer_netns=self.netns.fd, mtu=1500, master=bridge.index)
        )
        uplink = self.netns.query(lambda netlink: links.get(netlink, "eth0"))
        self.netns.request(links.change(uplink.index, up=True), addresses.add(uplink.index, f"{self.ip}/24"))
        self.netns.query(lambda netlink: wait_until_up(netlink, "eth0"))
        for device in (self.name, "underlay"):
            underlay.query(lambda netlink, device=device: wait_until_up(netlink, device))
        self.overlay = OverlayNetwork(self.name, self.ip, exclude=(PODS, UNDERLAY))
        self.tunnel = self.netns.run(lambda: self.overlay.ensure(self.pod_cidr))
        data_dir = str(cache_dir / self.name)
        self.network = Network(conflist(self.pod_cidr, self.tunnel.mtu, data_dir=data_dir), (), cache_dir / self.name)

    @property
    def peer(self) -> Peer:
        return Peer(self.name, self.ip, self.pod_cidr, self.tunnel.vtep_mac)

    def sync(self, *nodes: Node):
        return self.netns.run(lambda: self.overlay.sync([node.peer for node in nodes]))

    def attach(self, pod: NetworkNamespace, name: str) -> str:
        return self.netns.run(lambda: self.network.add(name, pod.path)).ips[0].ip

    def vxlan(self):
        return self.netns.query(lambda netlink: links.get(netlink, self.tunnel.device))


@pytest.fixture
def underlay():
    with NetworkNamespace() as namespace:
        yield namespace


@pytest.fixture
def nodes(underlay, tmp_path):
    made = [Node(number, underlay, tmp_path) for number in (1, 2, 3)]
    for node in made:
        node.sync(*made)
    yield made
    for node in made:
        node.netns.close()


@pytest.fixture
def pods():
    made = [NetworkNamespace() for _ in range(3)]
    yield made
    for pod in made:
        pod.close()


def delivered(listening: socket.socket, send: Callable[[], None]) -> tuple[bytes, Any]:
    """What arrives of what `send` sends until it does, and from where: the first packet over a link that is coming up may be lost."""
    listening.settimeout(0.5)
    deadline = time.monotonic() + 20
    while True:
        send()
        try:
            return listening.recvfrom(2000)
        except TimeoutError:
            assert time.monotonic() < deadline, "nothing arrives"


def source_seen(server: NetworkNamespace, client: NetworkNamespace, address: str) -> str:
    """Which source address a UDP server at `address` sees when the client writes to it."""

    def open_server() -> socket.socket:
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listening.bind((address, 7000))
        return listening

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"who am I?", (address, 7000))

    with server.run(open_server) as listening:
        return str(delivered(listening, lambda: client.run(send))[1][0])


def test_pods_on_different_nodes_reach_each_other_under_their_own_addresses(nodes, pods):
    first, second = nodes[0].attach(pods[0], "a"), nodes[1].attach(pods[1], "b")
    assert pods[0].reaches(second)
    assert pods[1].reaches(first)
    assert source_seen(pods[1], pods[0], second) == first


def test_pods_on_one_node_reach_each_other_and_their_node_reaches_them(nodes, pods):
    first, second = nodes[0].attach(pods[0], "a"), nodes[0].attach(pods[1], "b")
    assert pods[0].reaches(second)
    assert nodes[0].netns.reaches(first)
    assert source_seen(pods[1], pods[0], second) == first


def test_a_node_reaches_pods_elsewhere(nodes, pods):
    address = nodes[1].attach(pods[0], "a")
    assert nodes[0].netns.reaches(address)


def test_a_host_on_the_underlay_sees_pods_under_their_own_addresses(nodes, pods, underlay):
    address = nodes[0].attach(pods[0], "a")
    bridge = underlay.query(lambda netlink: links.get(netlink, "underlay"))
    underlay.request(
        addresses.add(bridge.index, "10.243.0.1/24"), routes.replace(Route("10.244.1.0/24", bridge.index, nodes[0].ip))
    )
    assert underlay.reaches(address)
    assert source_seen(underlay, pods[0], "10.243.0.1") == address


def test_traffic_that_leaves_the_cluster_is_masqueraded(nodes, pods, underlay):
    nodes[0].attach(pods[0], "a")
    bridge = underlay.query(lambda netlink: links.get(netlink, "underlay"))
    underlay.request(addresses.add(bridge.index, "10.243.0.1/24"), addresses.add(bridge.index, "192.0.2.1/32"))
    uplink = nodes[0].netns.query(lambda netlink: links.get(netlink, "eth0"))
    nodes[0].netns.request(routes.replace(Route("0.0.0.0/0", uplink.index, "10.243.0.1")))
    assert source_seen(underlay, pods[0], "192.0.2.1") == nodes[0].ip


def test_a_packet_of_the_pods_mtu_passes_without_fragments(nodes, pods):
    nodes[0].attach(pods[0], "a")
    address = nodes[1].attach(pods[1], "b")
    assert nodes[0].tunnel.mtu == 1450

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
            sending.sendto(bytes(1450 - 28), (address, 7000))
            with pytest.raises(OSError, match="too long"):
                sending.sendto(bytes(1451 - 28), (address, 7000))

    def receive() -> socket.socket:
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listening.bind((address, 7000))
        return listening

    with pods[1].run(receive) as listening:
        assert len(delivered(listening, lambda: pods[0].run(send))[0]) == 1450 - 28


def test_sync_of_an_unchanged_cluster_changes_nothing(nodes):
    assert not nodes[0].sync(*nodes)


@pytest.mark.parametrize("flushed", ["neigh", "fdb", "route", "address", "device", "masquerade"])
def test_what_somebody_flushes_is_repaired(nodes, pods, flushed):
    nodes[0].attach(pods[0], "a")
    address = nodes[1].attach(pods[1], "b")
    node, peer, device = nodes[0], nodes[1].peer, nodes[0].tunnel.device
    {
        "neigh": lambda: node.netns.command("ip", "neigh", "flush", "dev", device, "nud", "permanent"),
        "fdb": lambda: node.netns.command("bridge", "fdb", "del", peer.vtep_mac, "dev", device, "dst", peer.public_ip),
        "route": lambda: node.netns.command("ip", "route", "flush", "dev", device),
        "address": lambda: node.netns.command("ip", "address", "flush", "dev", device),
        "device": lambda: node.netns.command("ip", "link", "delete", device),
        "masquerade": lambda: node.netns.command("nft", "flush", "ruleset"),
    }[flushed]()
    node.netns.run(lambda: node.overlay.ensure(node.pod_cidr))
    node.sync(*nodes)
    assert pods[0].reaches(address)
    assert not node.sync(*nodes)
    assert "masquerade" in node.netns.command("nft", "list", "ruleset").stdout
    assert node.netns.query(lambda netlink: addresses.dump(netlink, index=node.vxlan().index, family=socket.AF_INET))


def test_a_leaving_node_leaves_no_entry(nodes):
    nodes[0].sync(nodes[0], nodes[1])
    device = nodes[0].vxlan().index
    gone = nodes[2].peer
    found = nodes[0].netns.query(
        lambda netlink: (
            routes.dump_fdb(netlink, device),
            routes.dump_neighbours(netlink, device),
            routes.dump(netlink, index=device),
        )
    )
    assert [len(entries) for entries in found] == [1, 1, 1]
    assert gone.vtep_mac not in str(found)
    assert gone.subnet not in str(found)


def test_a_node_that_comes_back_with_another_address_is_followed(nodes, pods):
    nodes[0].attach(pods[0], "a")
    moved = Peer(nodes[1].name, "10.243.0.99", nodes[1].pod_cidr, nodes[1].tunnel.vtep_mac)
    nodes[0].netns.run(lambda: nodes[0].overlay.sync([moved, nodes[2].peer]))
    device = nodes[0].vxlan().index
    entries = nodes[0].netns.query(lambda netlink: routes.dump_fdb(netlink, device))
    assert {entry.address for entry in entries} == {"10.243.0.99", nodes[2].ip}


def test_a_device_with_other_properties_is_made_again_and_keeps_its_mac(nodes):
    node = nodes[0]
    changed = node.netns.query(lambda netlink: overlay.ensure_device(netlink, public_ip=node.ip, vni=1, port=4789))
    assert changed.mac == node.tunnel.vtep_mac
    assert "dstport 4789" in node.netns.command("ip", "-d", "link", "show", "vxlan.1").stdout


def test_nonsense_in_one_nodes_annotations_does_not_cut_off_the_others(nodes):
    broken = [
        Peer("bad-subnet", "10.243.0.50", "10.244.300.0/24", "02:00:00:00:00:01"),
        Peer("bad-mac", "10.243.0.51", "10.244.51.0/24", "zz"),
        Peer("bad-address", "nowhere", "10.244.52.0/24", "02:00:00:00:00:02"),
    ]
    changes = nodes[0].netns.run(lambda: nodes[0].overlay.sync([*broken, nodes[1].peer, nodes[2].peer]))
    assert not changes


def test_a_hundred_nodes_synchronising_twice_at_once_end_in_the_same_state(nodes):
    crowd = [Peer(f"n{i}", f"10.243.1.{i}", f"10.244.{i}.0/24", f"02:00:00:00:01:{i:02x}") for i in range(100, 200)]
    threads = [
        threading.Thread(target=nodes[0].netns.run, args=(lambda: nodes[0].overlay.sync(crowd),)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not nodes[0].netns.run(lambda: nodes[0].overlay.sync(crowd))
