"""The loopback plugin: brings `lo` up in the container. With prevResult it stands in a chain and passes that on."""

from __future__ import annotations

from minikube_raw.netlink import links

from . import errors, netns
from .errors import CNIError
from .results import Result
from .skel import CmdArgs

LOOPBACK = 1  # the index of lo in every network namespace


def cmd_add(args: CmdArgs) -> Result:
    """Brings lo up; the kernel gives it 127.0.0.1/8 and ::1/128 itself."""
    with netns.opened(args.netns) as namespace, namespace.netlink() as netlink:
        netlink.request(links.change(LOOPBACK, up=True))
    if previous := args.previous:
        return previous
    return {
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": args.netns}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}],
    }


def cmd_del(args: CmdArgs) -> None:
    """Brings lo down; a namespace that is gone is fine."""
    with netns.opened_if_there(args.netns) as namespace:
        if namespace:
            with namespace.netlink() as netlink:
                netlink.request(links.change(LOOPBACK, up=False))


def cmd_check(args: CmdArgs) -> None:
    """Raises CNIError when lo is down."""
    with netns.opened(args.netns) as namespace, namespace.netlink() as netlink:
        link = links.get(netlink, index=LOOPBACK)
    if link is None or not link.up:
        raise CNIError(
            errors.CHECK_FAILED, "lo is down", f"ip -n NETNS link set lo up, or attach {args.container_id} again"
        )


def cmd_gc(args: CmdArgs) -> None:
    """Nothing outlives the namespace."""


def cmd_status(args: CmdArgs) -> None:
    """Always ready."""
