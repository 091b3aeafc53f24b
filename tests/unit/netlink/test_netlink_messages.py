from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from minikube_raw.netlink import addresses, links, nftables, overlay, routes, transport
from minikube_raw.netlink.transport import HEADER, Message


def test_attributes_are_padded_to_four_bytes_and_read_back():
    body = transport.attribute(1, b"abc") + transport.attribute(2, b"12345678")
    assert len(body) % 4 == 0
    assert list(transport.attributes(body)) == [(1, b"abc"), (2, b"12345678")]


@pytest.mark.parametrize("broken", [b"\x03", b"\x00\x00\x01\x00", b"\xff\x00\x01\x00abc"])
def test_a_malformed_attribute_ends_the_walk(broken):
    assert list(transport.attributes(broken)) == []


def test_an_errno_that_is_to_be_ignored_is_success():
    message = Message(0, 0, b"", "address add", "10.0.0.1/8", (errno.EEXIST,))
    answer = struct.pack("=i", -errno.EEXIST) + HEADER.pack(16, 0, 0, 1, 0)
    assert transport.outcome(message, 0, answer) is None


def test_an_error_names_what_was_done_to_what_and_the_kernels_words():
    message = Message(0, 0, b"", "route add", "10.0.0.0/8 via 1.2.3.4")
    words = transport.attribute(1, b"Nexthop has invalid gateway\0")
    answer = struct.pack("=i", -errno.ENETUNREACH) + HEADER.pack(16, 0, 0, 1, 0) + words
    error = transport.outcome(message, transport.NLM_F_CAPPED | transport.NLM_F_ACK_TLVS, answer)
    assert error.errno == errno.ENETUNREACH
    assert "route add 10.0.0.0/8 via 1.2.3.4" in str(error)
    assert "Nexthop has invalid gateway" in str(error)


def test_errors_are_the_exceptions_python_has_for_them():
    answer = struct.pack("=i", -errno.EEXIST)
    assert isinstance(transport.outcome(Message(0, 0, b"", "link add", "x"), 0, answer), FileExistsError)


def test_derived_macs_are_unicast_local_and_stable():
    mac = links.mac_from("container", "c1")
    assert mac == links.mac_from("container", "c1") != links.mac_from("containe", "rc1")
    assert int(mac[:2], 16) & 3 == 2


def test_vtep_macs_are_one_to_one_for_ipv4():
    macs = {overlay.vtep_mac(f"10.{a}.{b}.7") for a in range(0, 256, 5) for b in range(0, 256, 5)}
    assert len(macs) == 52 * 52
    assert all(int(mac[:2], 16) & 3 == 2 for mac in [*macs, overlay.vtep_mac("fd00::1")])


def test_a_network_is_matched_under_its_whole_mask():
    expression = b"".join(nftables.match_network(nftables.NFPROTO_IPV4, "10.96.0.0/12", source=False))
    assert bytes([255, 240, 0, 0]) in expression
    assert bytes([10, 96, 0, 0]) in expression


@pytest.mark.parametrize("comment", ["", "net c1 eth0", "ä" * 200])
def test_comments_come_back(comment):
    found = nftables.comment_of(nftables.userdata(comment))
    assert comment.startswith(found.rstrip("�"))
    assert len(found) >= min(len(comment), 120)


def read(message_class: Any, message: Message) -> Any:
    return transport.to_pyroute2(message_class, message.body)


def test_a_veth_pair_is_packed_as_pyroute2_reads_it():
    ends = {"mac": "02:00:00:00:00:01", "peer_mac": "0a:00:00:00:00:02", "mtu": 1450, "master": 4}
    found = read(ifinfmsg, links.add_veth("veth1", peer_name="eth0", peer_netns=7, **ends))
    assert (found.get_attr("IFLA_IFNAME"), found.get_attr("IFLA_ADDRESS")) == ("veth1", "02:00:00:00:00:01")
    assert (found.get_attr("IFLA_MTU"), found.get_attr("IFLA_MASTER"), found["flags"]) == (1450, 4, links.IFF_UP)
    assert found.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "veth"
    peer = found.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "VETH_INFO_PEER")
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_ADDRESS")) == ("eth0", "0a:00:00:00:00:02")
    assert (peer.get_attr("IFLA_MTU"), peer.get_attr("IFLA_NET_NS_FD"), peer["flags"]) == (1450, 7, 0)


def test_a_change_of_a_link_is_packed_as_pyroute2_reads_it():
    found = read(ifinfmsg, links.change(3, name="x", mtu=1400, master=0, up=False, promiscuous=True, netns=9))
    assert (found["index"], found["flags"], found["change"]) == (3, links.IFF_PROMISC, links.IFF_PROMISC | links.IFF_UP)
    assert (found.get_attr("IFLA_IFNAME"), found.get_attr("IFLA_MTU")) == ("x", 1400)
    assert (found.get_attr("IFLA_MASTER"), found.get_attr("IFLA_NET_NS_FD")) == (0, 9)


@pytest.mark.parametrize(
    ("cidr", "broadcast", "flags"),
    [("10.1.2.3/16", "10.1.255.255", None), ("10.1.2.3/32", None, None), ("fd00::5/64", None, addresses.IFA_F_NODAD)],
)
def test_an_address_is_packed_as_pyroute2_reads_it(cidr, broadcast, flags):
    found = read(ifaddrmsg, addresses.add(2, cidr))
    address, length = cidr.split("/")
    assert (found["index"], found["prefixlen"]) == (2, int(length))
    assert found.get_attr("IFA_ADDRESS") == found.get_attr("IFA_LOCAL") == address
    assert (found.get_attr("IFA_BROADCAST"), found.get_attr("IFA_FLAGS")) == (broadcast, flags)


@pytest.mark.parametrize(
    "route",
    [
        routes.Route("0.0.0.0/0", 2, "10.1.0.1"),
        routes.Route("10.2.0.0/16", 3, "10.9.9.9", onlink=True, mtu=1400, source="10.1.1.1"),
        routes.Route("10.3.0.0/24", 5),
        routes.Route("::/0", 3, "fe80::1"),
    ],
    ids=["default", "everything", "direct", "ipv6"],
)
def test_a_route_is_packed_as_it_is_read_again(route):
    found = read(rtmsg, routes.replace(route))
    assert routes._parse_route(found, addresses.family_of(route.destination)) == route
    assert found["scope"] == (routes.RT_SCOPE_UNIVERSE if route.gateway else routes.RT_SCOPE_LINK)


def test_neighbours_are_packed_as_pyroute2_reads_them():
    entry = routes.Neighbour(3, "10.0.0.1", "02:00:00:00:00:01")
    for message, family, flags in (
        (routes.replace_neighbour(entry), 2, 0),
        (routes.replace_fdb(entry), routes.AF_BRIDGE, routes.NTF_SELF),
    ):
        found = read(ndmsg, message)
        assert (found["family"], found["ifindex"], found["flags"]) == (family, 3, flags)
        assert (found["state"], found.get_attr("NDA_DST")) == (routes.NUD_PERMANENT, "10.0.0.1")
        assert found.get_attr("NDA_LLADDR") == "02:00:00:00:00:01"
    assert read(ndmsg, routes.delete_neighbour(entry)).get_attr("NDA_LLADDR") is None
