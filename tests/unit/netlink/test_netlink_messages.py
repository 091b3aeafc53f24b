from __future__ import annotations

import errno
import struct

import pytest

from minikube_raw.netlink import links, nftables, overlay, transport
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
