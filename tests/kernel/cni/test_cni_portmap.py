"""The portmap plugin behind bridge: real connections to a host's ports, from everywhere they may come from."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minikube_raw.cni import Network
from minikube_raw.netlink import addresses, links, portmaps
from netplugins import errors
from netplugins.errors import CNIError
from tests.netns import NetworkNamespace

pytestmark = pytest.mark.root

HOST, OTHER, REMOTE = "192.0.2.1", "192.0.2.11", "192.0.2.2"
HOST6, REMOTE6 = "2001:db8::1", "2001:db8::2"
SUBNETS = ["10.1.0.0/24", "fd00:10::/64"]


def conflist(tmp_path: Path, **options: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "ranges": [[{"subnet": each}] for each in SUBNETS]}
    bridge = {"type": "bridge", "isDefaultGateway": True, "hairpinMode": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}} | options
    return {"cniVersion": "1.1.0", "name": "net", "plugins": [bridge, portmap]}


def mapping(host_port: int, container_port: int = 80, protocol: str = "tcp", host_ip: str = "") -> dict[str, Any]:
    return {"hostPort": host_port, "containerPort": container_port, "protocol": protocol, "hostIP": host_ip}


class Wire(NamedTuple):
    """A host with two addresses, and another machine beside it."""

    host: NetworkNamespace
    remote: NetworkNamespace


@pytest.fixture
def wire(host, make_pod) -> Wire:
    remote = make_pod()
    host.request(links.add_veth("wire0", peer_name="wire1", peer_netns=remote.fd))
    for namespace, device, own in ((host, "wire0", (HOST, OTHER, HOST6)), (remote, "wire1", (REMOTE, REMOTE6))):
        namespace.run(lambda device=device: Path(f"/proc/sys/net/ipv6/conf/{device}/accept_dad").write_text("0"))
        index = namespace.query(lambda netlink, device=device: links.get(netlink, device)).index
        sized = [f"{each}/{64 if ':' in each else 24}" for each in own]
        namespace.request(links.change(index, up=True), *(addresses.add(index, each) for each in sized))
    return Wire(host, remote)


@pytest.fixture
def network(tmp_path):
    return lambda **options: Network(conflist(tmp_path, **options), (), tmp_path / "cache")


def serve(pod: NetworkNamespace, port: int = 80, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A server in a pod, for both families."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6, kind)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        made.settimeout(10)
        return made

    return pod.run(make)


def reaches(client: NetworkNamespace, server: socket.socket, address: str, port: int) -> str:
    """The client's address as the server sees it, "" when nobody answers."""
    try:
        with client.run(lambda: socket.create_connection((address, port), timeout=2)) as connection:
            accepted, peer = server.accept()
            with accepted:
                accepted.sendall(b"here")
                assert connection.recv(10) == b"here"
            return str(peer[0]).removeprefix("::ffff:")
    except OSError:
        return ""


def ruleset(host: NetworkNamespace) -> str:
    return host.command("nft", "list", "ruleset").stdout


def test_a_host_port_is_reached_from_everywhere_until_it_is_deleted(wire, pod, make_pod, network):
    other = make_pod()
    address = wire.host.run(lambda: network().add("a", pod.path, runtime_config={"portMappings": [mapping(8080)]}))
    wire.host.run(lambda: network().add("b", other.path))
    own = address.ips[0].address.partition("/")[0]
    with serve(pod) as server:
        everywhere = {
            "remote": reaches(wire.remote, server, HOST, 8080),
            "remote, other address": reaches(wire.remote, server, OTHER, 8080),
            "remote, IPv6": reaches(wire.remote, server, HOST6, 8080),
            "host": reaches(wire.host, server, HOST, 8080),
            "loopback": reaches(wire.host, server, "127.0.0.1", 8080),
            "itself": reaches(pod, server, HOST, 8080),
            "other pod": reaches(other, server, HOST, 8080),
        }
        assert all(everywhere.values()), everywhere
        assert (everywhere["remote"], everywhere["remote, IPv6"]) == (REMOTE, REMOTE6), "clients keep their address"
        assert everywhere["itself"] != own
        assert not reaches(wire.remote, server, HOST, 8081)
        for _ in range(2):
            wire.host.run(lambda: network().delete("a", pod.path))
        assert not reaches(wire.host, server, HOST, 8080)
    assert ' eth0"' not in ruleset(wire.host), "a map still has an element"


def test_del_finds_its_ports_when_namespace_record_and_result_are_gone(wire, pod, network, tmp_path):
    ports = {"portMappings": [mapping(8080), mapping(8080, 53, "udp"), mapping(8443, 443, host_ip=OTHER)]}
    wire.host.run(lambda: network().add("a", pod.path, runtime_config=ports))
    assert "net a eth0" in ruleset(wire.host)
    for record in (tmp_path / "cache/results").iterdir():
        record.unlink()
    wire.host.run(lambda: network().delete("a"))
    assert ' eth0"' not in ruleset(wire.host)


def test_a_host_ip_answers_alone_and_shares_its_port_with_others(wire, pod, make_pod, network):
    second = make_pod()
    for name, where, host_ip in (("a", pod, HOST), ("b", second, OTHER)):
        ports = {"portMappings": [mapping(8080, host_ip=host_ip)]}
        wire.host.run(lambda name=name, where=where, ports=ports: network().add(name, where.path, runtime_config=ports))
    with serve(pod) as first_server, serve(second) as second_server:
        assert reaches(wire.remote, first_server, HOST, 8080)
        assert reaches(wire.remote, second_server, OTHER, 8080)
        assert not reaches(wire.host, first_server, "127.0.0.1", 8080)


def test_a_udp_client_goes_on_with_the_pod_that_has_the_port_now(wire, make_pod, network):
    first, second = make_pod(), make_pod()
    ports = {"portMappings": [mapping(5353, 53, "udp")]}
    client = wire.remote.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.settimeout(10)
    client.connect((HOST, 5353))

    def is_answered_by(server: socket.socket, text: bytes) -> bool:
        client.send(b"ask")
        _, peer = server.recvfrom(10)
        server.sendto(text, peer)
        return client.recv(10) == text

    with client, serve(first, 53, socket.SOCK_DGRAM) as one, serve(second, 53, socket.SOCK_DGRAM) as two:
        wire.host.run(lambda: network().add("a", first.path, runtime_config=ports))
        assert is_answered_by(one, b"first")
        wire.host.run(lambda: network().delete("a", first.path))
        wire.host.run(lambda: network().add("b", second.path, runtime_config=ports))
        assert is_answered_by(two, b"second")


def test_ports_of_a_container_whose_del_never_came_are_taken_over(wire, pod, make_pod, network):
    gone = make_pod()
    ports = {"portMappings": [mapping(8080)]}
    wire.host.run(lambda: network().add("gone", gone.path, runtime_config=ports))
    wire.host.run(lambda: network().add("new", pod.path, runtime_config=ports))
    wire.host.run(lambda: network().delete("gone"))
    with serve(pod) as server:
        assert reaches(wire.remote, server, HOST, 8080)


def test_masq_all_hides_the_client_behind_the_host(wire, pod, network):
    plugin = network(masqAll=True, markMasqBit=7)
    wire.host.run(lambda: plugin.add("a", pod.path, runtime_config={"portMappings": [mapping(8080)]}))
    bridge = wire.host.query(lambda netlink: links.get(netlink, "cni0"))
    own = wire.host.query(lambda n: addresses.dump(n, index=bridge.index, family=socket.AF_INET))[0].cidr
    with serve(pod) as server:
        assert reaches(wire.remote, server, HOST, 8080) == own.partition("/")[0]


@pytest.mark.parametrize(
    ("condition", "lets_in"),
    [
        (["-s", f"{REMOTE}/32"], True),
        (["!", "-s", f"{REMOTE}/32"], False),
        (["ip", "saddr", "!=", REMOTE], False),
        (["ip", "daddr", f"{HOST}/32", "iifname", "wire0"], True),
        (["-i", "lo"], False),
    ],
)
def test_conditions_choose_who_is_let_in(wire, pod, network, condition, lets_in):
    plugin = network(conditionsV4=condition)
    wire.host.run(lambda: plugin.add("a", pod.path, runtime_config={"portMappings": [mapping(8080)]}))
    with serve(pod) as server:
        assert bool(reaches(wire.remote, server, HOST, 8080)) == lets_in


def test_without_ports_nothing_is_made(host, pod, network):
    result = host.run(lambda: network().add("a", pod.path))
    host.run(lambda: network().check("a", pod.path))
    assert [interface.name for interface in result.interfaces][-1] == "eth0"
    assert "portmap" not in ruleset(host)


def test_check_notices_what_is_not_in_force_any_more(host, pod, network):
    host.run(lambda: network().add("a", pod.path, runtime_config={"portMappings": [mapping(8080)]}))
    host.run(lambda: network().check("a", pod.path))
    host.command("nft", "flush", "map", "ip", "minikube_raw_portmap", "at-any")
    with pytest.raises(CNIError, match="at-any") as failed:
        host.run(lambda: network().check("a", pod.path))
    assert failed.value.code == errors.CHECK_FAILED


def test_add_puts_rules_back_that_somebody_flushed(wire, pod, make_pod, network):
    ports = {"portMappings": [mapping(8080)]}
    wire.host.run(lambda: network().add("a", make_pod().path, runtime_config={"portMappings": [mapping(1)]}))
    wire.host.command("nft", "flush", "ruleset")
    wire.host.run(lambda: network().add("b", pod.path, runtime_config=ports))
    with serve(pod) as server:
        assert reaches(wire.remote, server, HOST, 8080)


def test_gc_keeps_the_ports_of_valid_attachments_only(wire, pod, make_pod, network, tmp_path):
    other = make_pod()
    for name, where, port in (("a", pod, 8080), ("b", other, 8081)):
        ports = {"portMappings": [mapping(port)]}
        wire.host.run(lambda name=name, where=where, ports=ports: network().add(name, where.path, runtime_config=ports))
    for record in (tmp_path / "cache/results").glob("*-b-*"):
        record.unlink()
    wire.host.run(lambda: network().gc([("a", "eth0")]))
    with serve(pod) as server:
        assert reaches(wire.remote, server, HOST, 8080)
    assert "net b eth0" not in ruleset(wire.host)


def test_the_tables_go_with_the_last_mapping_of_anybody(host, pod, network):
    host.run(lambda: network().add("a", pod.path, runtime_config={"portMappings": [mapping(8080)]}))
    host.run(portmaps.remove_if_empty)
    assert "net a eth0" in ruleset(host)
    host.run(lambda: network().delete("a", pod.path))
    host.run(portmaps.remove_if_empty)
    assert "portmap" not in ruleset(host)


def test_status_is_ready(host, network):
    host.run(lambda: network().status())


@pytest.mark.parametrize(
    ("options", "ports", "code", "text"),
    [
        ({}, [mapping(0)], errors.INVALID_CONFIG, "Invalid host port number: 0"),
        ({}, [mapping(80, -1)], errors.INVALID_CONFIG, "Invalid container port number: -1"),
        ({}, [mapping(80, protocol="icmp")], errors.INVALID_CONFIG, "unknown protocol"),
        ({}, [mapping(80, host_ip="nowhere")], errors.INVALID_CONFIG, "invalid hostIP"),
        ({"markMasqBit": 32}, [mapping(80)], errors.INVALID_CONFIG, "MasqMarkBit must be between 0 and 31"),
        ({"externalSetMarkChain": "X"}, [mapping(80)], errors.UNSUPPORTED_FIELD, "externalSetMarkChain 'X'"),
        ({"backend": "iptables"}, [mapping(80)], errors.UNSUPPORTED_FIELD, "backend 'iptables'"),
        ({"conditionsV4": ["-m", "tcp"]}, [mapping(80)], errors.UNSUPPORTED_FIELD, "condition -m 'tcp'"),
        ({"conditionsV6": ["-s", "10.0.0.0/8"]}, [mapping(80)], errors.INVALID_CONFIG, "other address family"),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(host, pod, network, options, ports, code, text):
    with pytest.raises(CNIError, match=text) as failed:
        host.run(lambda: network(**options).add("a", pod.path, runtime_config={"portMappings": ports}))
    assert failed.value.code == code
    assert "net a eth0" not in ruleset(host)
    assert [link.name for link in host.query(links.dump) if link.kind == "veth"] == []


def test_it_has_to_be_chained(host, pod, tmp_path):
    config = conflist(tmp_path)
    config["plugins"] = config["plugins"][1:]
    with pytest.raises(CNIError, match="must be called as chained plugin"):
        host.run(lambda: Network(config, (), tmp_path / "cache").add("a", pod.path))
