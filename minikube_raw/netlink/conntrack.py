"""Connection tracking entries that would outlive what they were made for: found by their first packet's port, deleted.

A UDP "connection" is what the first datagram met: while datagrams keep coming, a client stays tied to a pod that is gone, or to
none. Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterator

from .nftables import NFPROTO_IPV4, NFPROTO_IPV6, NLA_F_NESTED
from .transport import NETLINK_NETFILTER, Message, NetlinkSocket, attribute, attributes

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_PROTO, _PROTO_NUM, _PROTO_DST_PORT = 1, 2, 1, 3
UDP = 17


def forget(ports: Collection[int], *, protocol: int = UDP) -> int:
    """Deletes the entries whose first packet went to one of the ports; returns how many. Where the kernel tracks none, none."""
    if not ports:
        return 0
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        doomed = [
            found for family in (NFPROTO_IPV4, NFPROTO_IPV6) for found in _to_ports(netlink, family, ports, protocol)
        ]
        netlink.request(*doomed)
    return len(doomed)


def _to_ports(netlink: NetlinkSocket, family: int, ports: Collection[int], protocol: int) -> Iterator[Message]:
    header = struct.pack(">BBH", family, 0, 0)
    try:
        answers = netlink.dump(Message(_SUBSYSTEM | _GET, 0, header, "conntrack list", f"family {family}"))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT):
            return
        raise
    for answer in answers:
        original = next((value for kind, value in attributes(answer, 4) if kind == _TUPLE_ORIG), b"")
        flow = dict(attributes(dict(attributes(original)).get(_TUPLE_PROTO, b"")))
        if flow.get(_PROTO_NUM, b"\0")[0] != protocol or len(flow.get(_PROTO_DST_PORT, b"")) < 2:
            continue
        (port,) = struct.unpack_from(">H", flow[_PROTO_DST_PORT])
        if port in ports:
            body = header + attribute(_TUPLE_ORIG | NLA_F_NESTED, original)
            yield Message(_SUBSYSTEM | _DELETE, 0, body, "conntrack delete", f"port {port}", ignore=(errno.ENOENT,))
