"""The bridge plugin through libcni, in namespaces of the test's own: what ADD makes, DEL takes away and CHECK notices."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from minikube_raw.cni import Network
from minikube_raw.netlink import NetlinkSocket, addresses, links, routes
from netplugins import bridge, errors, skel
from netplugins.errors import CNIError
from tests.netns import NetworkNamespace

pytestmark = pytest.mark.root


def conflist(tmp_path: Path, subnet: str = "10.1.0.0/24", version: str = "1.1.0", **options) -> dict:
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "ranges": [[{"subnet": subnet}]]}
    bridge = {"type": "bridge", "isDefaultGateway": True, "ipam": ipam, "capabilities": {"mac": True, "ips": True}}
    return {"cniVersion": version, "name": "net", "plugins": [bridge | options, {"type": "loopback"}]}


@pytest.fixture
def network(tmp_path):
    return lambda **options: Network(conflist(tmp_path, **options), (), tmp_path / "cache")


def records(tmp_path: Path) -> list[str]:
    """Addresses host-local has recorded."""
    return sorted(name for name in os.listdir(tmp_path / "ipam/net") if name[0].isdigit())


def traces(host: NetworkNamespace) -> dict[str, object]:
    """What attachments leave on a host, besides the bridge itself."""
    bridge = host.query(lambda netlink: links.get(netlink, "cni0"))
    return {
        "ports": [link.name for link in host.query(links.dump) if link.kind == "veth"],
        "neighbours": host.query(lambda netlink: routes.dump_neighbours(netlink, bridge.index)) if bridge else [],
        "masqueraded": "jump except" in host.command("nft", "list", "ruleset").stdout,
    }


NOTHING = {"ports": [], "neighbours": [], "masqueraded": False}


def test_the_result_is_what_the_kernel_has(host, pod, network):
    result = host.run(lambda: network(mtu=1400, hairpinMode=True).add("a", pod.path))
    bridge, port = (host.query(lambda n, name=i.name: links.get(n, name)) for i in result.interfaces[:2])
    inside = pod.query(lambda netlink: links.get(netlink, "eth0"))
    assert [i.mac for i in result.interfaces] == [bridge.mac, port.mac, inside.mac]
    assert [i.sandbox for i in result.interfaces] == ["", "", pod.path]
    assert (port.master, port.mtu, inside.mtu) == (bridge.index, 1400, 1400)
    assert [result.ips[0].address, "10.1.0.1"] == [
        pod.query(lambda n: addresses.dump(n, index=inside.index, family=socket.AF_INET))[0].cidr,
        result.ips[0].gateway,
    ]
    assert routes.Route("0.0.0.0/0", inside.index, "10.1.0.1") in pod.query(routes.dump)
    assert "hairpin on" in host.command("bridge", "-d", "link", "show", "dev", port.name).stdout
    assert len(port.name) <= 15


def test_the_hosts_end_names_the_pod_it_serves(host, pod, network):
    cni_args = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": "web-" + "x" * 249}
    result = host.run(lambda: network().add("a", pod.path, args=cni_args))
    (told,) = json.loads(host.command("ip", "-json", "link", "show", "dev", result.interfaces[1].name).stdout)
    assert told["ifalias"] == f"shop/web-{'x' * 246}"


def test_neighbour_entries_are_permanent_on_both_sides(host, pod, network):
    result = host.run(lambda: network().add("a", pod.path))
    bridge = host.query(lambda netlink: links.get(netlink, "cni0"))
    inside = pod.query(lambda netlink: links.get(netlink, "eth0"))
    ours = host.query(lambda netlink: routes.dump_neighbours(netlink, bridge.index))
    theirs = pod.query(lambda netlink: routes.dump_neighbours(netlink, inside.index))
    assert [(entry.address, entry.mac) for entry in ours] == [(result.ips[0].ip, inside.mac)]
    assert [(entry.address, entry.mac) for entry in theirs] == [("10.1.0.1", bridge.mac)]


def test_two_pods_their_host_and_loopback_answer(host, make_pod, network):
    first, second = make_pod(), make_pod()
    a = host.run(lambda: network().add("a", first.path)).ips[0].ip
    b = host.run(lambda: network().add("b", second.path)).ips[0].ip
    assert first.reaches(b)
    assert host.reaches(a)
    assert second.reaches("10.1.0.1")
    assert second.reaches("127.0.0.1")


def test_dual_stack_pods_reach_each_other_over_both_families(host, make_pod, tmp_path):
    plan = conflist(tmp_path, ipMasq=True)
    plan["plugins"][0]["ipam"]["ranges"].append([{"subnet": "fd00:1::/64"}])
    network = Network(plan, (), tmp_path / "cache")
    first, second = make_pod(), make_pod()
    host.run(lambda: network.add("a", first.path))
    result = host.run(lambda: network.add("b", second.path))
    assert all(first.reaches(config.ip) for config in result.ips)
    assert [config.gateway for config in result.ips] == ["10.1.0.1", "fd00:1::1"]
    host.run(lambda: network.check("b", second.path))
    host.run(lambda: (network.delete("a", first.path), network.delete("b", second.path)))
    assert traces(host) == NOTHING


def test_the_first_pod_of_a_bridge_waits_until_that_carries_what_the_host_sends(host, make_pod, network, monkeypatch):
    waited_for = []
    wait = bridge.wait_until_up
    monkeypatch.setattr(bridge, "wait_until_up", lambda socket, name: (waited_for.append(name), wait(socket, name)))
    first = host.run(lambda: network().add("a", make_pod().path)).interfaces[1].name
    second = host.run(lambda: network().add("b", make_pod().path)).interfaces[1].name
    assert waited_for == [first, "cni0", second]


def test_no_add_asks_for_a_list_of_anything(host, make_pod, network, monkeypatch):
    """Whatever the kernel lists is as long as there are pods."""
    listed = []
    dump = NetlinkSocket.dump
    monkeypatch.setattr(
        NetlinkSocket, "dump", lambda self, message: (listed.append(message.what), dump(self, message))[1]
    )
    for number in range(2):
        host.run(lambda number=number: network().add(f"c{number}", make_pod().path))
    assert listed == []


def heard_by(pod: NetworkNamespace, happens: Callable[[], object]) -> list[bytes]:
    """The frames that come to a pod's eth0 while something happens, and shortly after."""
    every = socket.htons(3)  # ETH_P_ALL
    with pod.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, every)) as listener:
        pod.run(lambda: listener.bind(("eth0", 3)))
        happens()
        pod.run(lambda: listener.settimeout(1.2))  # the kernel puts its first words off by a second at most
        heard = []
        with suppress(TimeoutError):
            while True:
                heard.append(listener.recv(2048))
        return heard


def test_a_pod_that_is_attached_makes_no_other_pod_work(host, make_pod, network):
    first, second = make_pod(), make_pod()
    bridge = host.run(lambda: network().add("a", first.path)).interfaces[0]
    heard = heard_by(first, lambda: host.run(lambda: network().add("b", second.path)))
    assert {frame[6:12].hex(":") for frame in heard} <= {bridge.mac}, "which tells of itself, once"
    assert second.reaches("10.1.0.2")


def ipv6(namespace: NetworkNamespace, name: str) -> list[str]:
    index = namespace.query(lambda netlink: links.get(netlink, name)).index
    return [each.cidr for each in namespace.query(lambda n: addresses.dump(n, index=index, family=socket.AF_INET6))]


def test_only_a_pod_whose_link_is_known_to_be_ipv4_alone_has_no_link_local_address(host, make_pod, tmp_path):
    """Where IPAM gave no address at all, a router of the link may give an IPv6 one."""
    ipv4, dual, unknown = conflist(tmp_path), conflist(tmp_path), conflist(tmp_path)
    dual["plugins"][0]["ipam"]["ranges"].append([{"subnet": "fd00:1::/64"}])
    unknown["plugins"][0] |= {"ipam": {}, "isDefaultGateway": False}
    pods = []
    for number, plan in enumerate((ipv4, dual, unknown)):
        network, pod = Network(plan, (), tmp_path / "cache"), make_pod()
        result = host.run(lambda network=network, pod=pod, number=number: network.add(f"c{number}", pod.path))
        assert ipv6(host, result.interfaces[1].name) == []
        pods.append(pod)
    deadline = time.monotonic() + 60
    while not all(has_link_local(pod) for pod in pods[1:]):
        assert time.monotonic() < deadline
    assert not has_link_local(pods[0])


def has_link_local(pod: NetworkNamespace) -> bool:
    return any(cidr.startswith("fe80:") for cidr in ipv6(pod, "eth0"))


@pytest.mark.parametrize("masquerade", [False, True], ids=["plain", "masquerade"])
@pytest.mark.parametrize(
    ("version", "namespace"),
    [(version, "alive") for version in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")]
    + [(version, end) for version in ("0.3.0", "1.1.0") for end in ("ended", "empty path", "path gone")],
)
def test_del_three_times_leaves_nothing(host, make_pod, network, tmp_path, namespace, version, masquerade):
    net, pod = network(version=version, ipMasq=masquerade), make_pod()
    host.run(lambda: net.add("a", pod.path))
    path = {"alive": pod.path, "ended": pod.path, "empty path": "", "path gone": str(tmp_path / "gone")}[namespace]
    if namespace != "alive":
        pod.close()
    for _ in range(3):
        host.run(lambda: net.delete("a", path))
    assert traces(host) == NOTHING
    assert records(tmp_path) == []


def test_del_of_what_was_never_added_succeeds(host, pod, network):
    host.run(lambda: network(ipMasq=True).delete("never", pod.path))
    host.run(lambda: network().delete("never", ""))


def test_the_rest_of_del_runs_when_one_step_was_done_by_hand(host, pod, network, tmp_path):
    net = network(ipMasq=True)
    result = host.run(lambda: net.add("a", pod.path))
    host.command("ip", "link", "delete", result.interfaces[1].name)
    host.command("nft", "flush", "ruleset")
    host.run(lambda: net.delete("a", pod.path))
    assert records(tmp_path) == []
    assert traces(host) == NOTHING


def test_masquerading_spares_the_own_subnet_and_what_is_excluded(host, pod, network):
    host.run(lambda: network(ipMasq=True, masqExclude=["10.0.0.0/12"]).add("a", pod.path))
    rules = host.command("nft", "list", "table", "ip", "minikube_raw_cni").stdout
    assert "ip daddr 10.1.0.0/24 return" in rules
    assert "ip daddr 10.0.0.0/12 return" in rules
    assert 'comment "net a eth0"' in rules


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        (("pod", "ip", "link", "set", "eth0", "down"), "eth0 is down"),
        (("pod", "ip", "link", "delete", "eth0"), "missing"),
        (("pod", "ip", "address", "flush", "dev", "eth0"), "no address"),
        (("pod", "ip", "route", "delete", "default"), "route to 0.0.0.0/0"),
        (("pod", "ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"), "has MAC"),
        (("pod", "ip", "link", "set", "lo", "down"), "lo is down"),
        (("host", "ip", "link", "set", "PORT", "nomaster"), "no port of cni0"),
        (("host", "ip", "link", "set", "PORT", "down"), "is down"),
        (("host", "ip", "address", "flush", "dev", "cni0"), "has no address 10.1.0.1/24"),
        (("host", "nft", "flush", "ruleset"), "masquerade"),
        (("host", "sysctl", "-q", "net.ipv4.ip_forward=0"), "ip_forward"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else "",
)
def test_check_names_what_differs(host, pod, network, breakage, says):
    net = network(ipMasq=True)
    result = host.run(lambda: net.add("a", pod.path))
    host.run(lambda: net.check("a", pod.path))
    where, *words = breakage
    {"pod": pod, "host": host}[where].command(*[w.replace("PORT", result.interfaces[1].name) for w in words])
    with pytest.raises(CNIError, match=says) as raised:
        host.run(lambda: net.check("a", pod.path))
    assert raised.value.code == errors.CHECK_FAILED


def test_check_notices_a_lost_reservation(host, pod, network, tmp_path):
    net = network()
    host.run(lambda: net.add("a", pod.path))
    for record in records(tmp_path):
        (tmp_path / "ipam/net" / record).unlink()
    with pytest.raises(CNIError, match="no address is recorded"):
        host.run(lambda: net.check("a", pod.path))


def test_check_tolerates_what_others_added(host, pod, network):
    net = network()
    host.run(lambda: net.add("a", pod.path))
    pod.command("ip", "address", "add", "10.99.0.1/32", "dev", "eth0")
    pod.command("ip", "route", "add", "10.98.0.0/16", "via", "10.1.0.1")
    host.run(lambda: net.check("a", pod.path))


def test_a_second_add_fails_and_harms_nothing(host, pod, network, tmp_path):
    host.run(lambda: network().add("a", pod.path))
    again = Network(conflist(tmp_path), (), tmp_path / "another cache")
    for net in (network(), again):
        with pytest.raises(CNIError) as raised:
            host.run(lambda net=net: net.add("a", pod.path))
        assert raised.value.code == errors.ALREADY_ATTACHED
    assert pod.reaches("10.1.0.1")


def test_a_second_add_under_another_cache_fails_without_del(host, pod, tmp_path):
    """The plugin itself refuses, before it allocates."""
    config = conflist(tmp_path)["plugins"][0] | {"name": "net", "cniVersion": "1.1.0"}
    args = skel.CmdArgs("a", pod.path, "eth0", config=config)
    host.run(lambda: skel.call(bridge, "ADD", args))
    with pytest.raises(CNIError) as raised:
        host.run(lambda: skel.call(bridge, "ADD", args))
    assert raised.value.code == errors.ALREADY_ATTACHED
    assert len(records(tmp_path)) == 1
    assert pod.reaches("10.1.0.1")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        pytest.param({"bridge": "lo"}, errors.IO_FAILURE, id="the bridge's name is another device's"),
        pytest.param({"mtu": 20}, errors.IO_FAILURE, id="the kernel refuses the MTU"),
        pytest.param({"hairpinMode": True, "promiscMode": True}, errors.INVALID_CONFIG, id="exclusive options"),
        pytest.param({"vlan": 5}, errors.UNSUPPORTED_FIELD, id="an option we lack"),
        pytest.param({"ipam": {"type": "missing"}}, errors.INVALID_CONFIG, id="no such IPAM plugin"),
        pytest.param({"ipam": {"type": "../x"}}, errors.INVALID_CONFIG, id="IPAM type with a separator"),
        pytest.param({"masqExclude": ["nonsense"]}, errors.INVALID_CONFIG, id="exclusion that is no network"),
    ],
)
def test_a_failed_add_leaves_nothing(host, pod, network, tmp_path, options, code):
    with pytest.raises(CNIError) as raised:
        host.run(lambda: network(**options).add("a", pod.path))
    assert raised.value.code == code
    assert traces(host) == NOTHING
    assert pod.query(lambda netlink: links.get(netlink, "eth0")) is None
    assert not (tmp_path / "ipam/net").exists() or records(tmp_path) == []
    assert host.run(lambda: network().result("a")) is None


@pytest.mark.parametrize(
    "options",
    [
        {"mtu": 20},
        {"bridge": "lo"},
        {"ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "x"}]}},
    ],
    ids=["veth refused", "bridge refused", "route malformed, pair made"],
)
def test_the_plugin_alone_undoes_a_failed_add(host, pod, tmp_path, options):
    config = conflist(tmp_path, **options)["plugins"][0] | {"name": "net", "cniVersion": "1.1.0"}
    config["ipam"]["dataDir"] = str(tmp_path / "ipam")
    with pytest.raises(CNIError):
        host.run(lambda: skel.call(bridge, "ADD", skel.CmdArgs("a", pod.path, "eth0", config=config)))
    assert records(tmp_path) == []
    assert traces(host) == NOTHING
    assert pod.query(lambda netlink: links.get(netlink, "eth0")) is None


def test_when_a_later_plugin_fails_the_earlier_ones_are_undone(host, pod, tmp_path):
    plan = conflist(tmp_path)
    plan["plugins"].append({"type": "missing"})
    with pytest.raises(CNIError, match="no plugin 'missing'"):
        host.run(lambda: Network(plan, (), tmp_path / "cache").add("a", pod.path))
    assert traces(host) == NOTHING
    assert records(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/no/such/path", errors.UNKNOWN_CONTAINER),
        ("/etc/hostname", errors.INVALID_NETNS),
        ("/proc/self/ns/mnt", errors.INVALID_NETNS),
    ],
)
def test_a_path_that_is_no_namespace_is_refused_before_anything_is_touched(host, network, tmp_path, path, code):
    with pytest.raises(CNIError) as raised:
        host.run(lambda: network().add("a", path))
    assert raised.value.code == code
    assert host.query(lambda netlink: links.get(netlink, "cni0")) is None


def test_the_hosts_own_namespace_is_refused_before_anything_is_touched(host, network):
    with pytest.raises(CNIError) as raised:
        host.run(lambda: network().add("a", host.path))
    assert raised.value.code == errors.INVALID_NETNS
    assert host.query(lambda netlink: links.get(netlink, "cni0")) is None


def test_requested_address_and_mac_are_honoured(host, pod, network):
    wishes = {"ips": ["10.1.0.77"], "mac": "02:11:22:33:44:55"}
    result = host.run(lambda: network().add("a", pod.path, runtime_config=wishes))
    assert (result.ips[0].ip, result.interfaces[2].mac) == ("10.1.0.77", "02:11:22:33:44:55")


def test_the_bridges_mac_stays_when_ports_come_and_go(host, make_pod, network):
    seen = set()
    for number in range(3):
        pod = make_pod()
        host.run(lambda pod=pod, number=number: network().add(f"c{number}", pod.path))
        seen.add(host.query(lambda netlink: links.get(netlink, "cni0")).mac)
        host.run(lambda pod=pod, number=number: network().delete(f"c{number}", pod.path))
        seen.add(host.query(lambda netlink: links.get(netlink, "cni0")).mac)
    assert len(seen) == 1


def test_forty_concurrent_adds_get_forty_addresses_and_their_dels_leave_nothing(host, make_pod, network, tmp_path):
    pods = [make_pod() for _ in range(40)]
    net = network(ipMasq=True)

    def add(number: int) -> str:
        return host.run(lambda: net.add(f"c{number}", pods[number].path)).ips[0].ip

    def delete(number: int) -> None:
        host.run(lambda: net.delete(f"c{number}", pods[number].path))

    with ThreadPoolExecutor(12) as pool:
        given = list(pool.map(add, range(40)))
        assert len(set(given)) == 40
        assert pods[0].reaches(given[-1])
        list(pool.map(delete, range(40)))
    assert records(tmp_path) == []
    assert traces(host) == NOTHING


def test_gc_removes_what_is_not_valid_and_keeps_the_rest(host, make_pod, network, tmp_path):
    net, pods = network(ipMasq=True), {name: make_pod() for name in ("valid", "dead", "forgotten")}
    kept = host.run(lambda: net.add("valid", pods["valid"].path)).ips[0].ip
    host.run(lambda: net.add("dead", pods["dead"].path))
    host.run(lambda: net.add("forgotten", pods["forgotten"].path))
    pods["dead"].close()
    (tmp_path / "cache/results/net-forgotten-eth0").unlink()  # as after a crash that lost the record
    host.run(lambda: net.gc([("valid", "eth0")]))
    assert records(tmp_path) == [kept]
    assert len(traces(host)["ports"]) == len(traces(host)["neighbours"]) == 1
    assert "forgotten" not in host.command("nft", "list", "ruleset").stdout
    host.run(lambda: net.check("valid", pods["valid"].path))
    assert pods["valid"].reaches("10.1.0.1")


def test_status_says_when_no_address_is_left(host, make_pod, network):
    net = network(subnet="10.1.0.0/30")
    host.run(net.status)
    pod = make_pod()
    host.run(lambda: net.add("a", pod.path))
    with pytest.raises(CNIError) as raised:
        host.run(net.status)
    assert raised.value.code == errors.NOT_AVAILABLE


def test_an_attachment_survives_a_new_process_between_add_and_del(host, pod, network):
    """Network keeps nothing: a second object finds result and arguments on disk."""
    before = host.run(lambda: network().add("a", pod.path, args={"IgnoreUnknown": "1", "K8S_POD_NAME": "web"}))
    assert network().result("a") == before
    host.run(lambda: network().delete("a", pod.path))
    assert network().result("a") is None
