"""The portmap plugin: ports of this host that lead into the container of the plugins before it.

ADD puts the mappings into `netlink.portmaps`' tables and returns prevResult as it is; without port mappings it does nothing else. DEL
needs neither prevResult nor mappings: entries name their owner. UDP clients that are tied to what was there before, by
connection tracking, are let go by both.
"""

from __future__ import annotations

from minikube_raw.linux import sysctl
from minikube_raw.netlink import NetlinkSocket, conntrack, links, portmaps, routes
from minikube_raw.netlink.masquerade import Key
from minikube_raw.netlink.nftables import NFPROTO_IPV4
from minikube_raw.netlink.portmaps import Forwarding

from . import attachments, errors
from .errors import CNIError
from .portmap_config import PortmapConfig, parse
from .results import Result
from .skel import CmdArgs


def cmd_add(args: CmdArgs) -> Result:
    """Forwards the ports; the result is prevResult."""
    previous = args.previous
    if previous is None:
        raise CNIError(errors.INVALID_CONFIG, "must be called as chained plugin", "prevResult is missing")
    if not _has_mappings(args):
        return previous
    config = parse(args)
    forwardings = config.forwardings(previous, args.ifname)
    if config.snat:
        for forwarding in forwardings:
            _let_loopback_out(forwarding)
    portmaps.ensure(_key(args, config), forwardings)
    conntrack.forget(_udp_ports(config))
    return previous


def _has_mappings(args: CmdArgs) -> bool:
    return bool((args.config.get("runtimeConfig") or {}).get("portMappings"))


def _key(args: CmdArgs, config: PortmapConfig) -> Key:
    return Key(config.network, args.container_id, args.ifname)


def _udp_ports(config: PortmapConfig) -> set[int]:
    return {mapping.host_port for mapping in config.mappings if mapping.protocol == "udp"}


def _let_loopback_out(forwarding: Forwarding) -> None:
    """Lets packets to 127.0.0.1 leave by the device that leads to the container (route_localnet): IPv4 only."""
    if forwarding.family != NFPROTO_IPV4:
        return
    with NetlinkSocket() as netlink:
        route = routes.uplink_to(netlink, forwarding.address)
        device = links.get(netlink, index=route.device) if route is not None else None
    if device is not None:
        sysctl.ensure(f"net/ipv4/conf/{device.name}/route_localnet", "1")


def cmd_del(args: CmdArgs) -> None:
    """Takes the container's ports back, whatever is left of it."""
    config = parse(args)
    conntrack.forget(_udp_ports(config) | set(portmaps.remove(_key(args, config))))


def cmd_check(args: CmdArgs) -> None:
    """Raises CNIError 100 when a mapping is not in force."""
    config, previous = parse(args), args.require_previous()
    if absent := portmaps.missing(_key(args, config), config.forwardings(previous, args.ifname)):
        raise CNIError(
            errors.CHECK_FAILED, f"host ports of {args.container_id} are not forwarded", f"{absent} are missing"
        )


def cmd_gc(args: CmdArgs) -> None:
    """Removes the ports of attachments that are not valid."""
    config, valid = parse(args), attachments.valid(args)
    if valid is not None:
        portmaps.keep_only(config.network, valid)


def cmd_status(args: CmdArgs) -> None:
    """Raises CNIError 50 when this kernel has no nf_tables."""
    parse(args)
    try:
        portmaps.probe()
    except OSError as error:
        raise CNIError(errors.NOT_AVAILABLE, "host ports need nf_tables", str(error)) from error
