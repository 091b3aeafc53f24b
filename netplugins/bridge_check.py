"""CHECK of the bridge plugin: compares the kernel with prevResult, host side and container side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minikube_raw.linux import sysctl
from minikube_raw.netlink import NetlinkSocket, addresses, links, routes
from minikube_raw.netlink.links import Link

from . import errors, netns
from .bridge_config import BridgeConfig
from .errors import CNIError
from .results import Result
from .skel import CmdArgs


def differs(message: str, details: str = "") -> CNIError:
    """CHECK's finding."""
    return CNIError(errors.CHECK_FAILED, message, details)


def check_host(config: BridgeConfig, previous: Result) -> None:
    """Raises CNIError when the bridge or the host end is missing, down, apart, or the host no longer forwards."""
    with NetlinkSocket() as host:
        bridge = _existing_link(host, config.bridge)
        port_name = next(
            (i["name"] for i in previous["interfaces"] if not i.get("sandbox") and i["name"] != config.bridge), None
        )
        if port_name is None:
            raise CNIError(errors.INVALID_CONFIG, "prevResult names no host interface beside the bridge")
        port = _existing_link(host, port_name)
        if port.master != bridge.index:
            raise differs(f"{port.name} is no port of {bridge.name}")
        held = {found.cidr for found in addresses.dump(host, index=bridge.index)}
    if not config.is_gateway:
        return
    for cidr in config.gateways(previous):
        if cidr not in held:
            raise differs(f"{bridge.name} has no address {cidr}")
        name = sysctl.FORWARDING[addresses.family_of(cidr)]
        if sysctl.read(name) == "0":
            raise differs(f"{name} is off", "the host forwards nothing")


def _existing_link(netlink: NetlinkSocket, name: str) -> Link:
    link = links.get(netlink, name)
    if link is None:
        raise differs(f"{name} is missing")
    if not link.up:
        raise differs(f"{name} is down")
    return link


def check_container(args: CmdArgs, previous: Result) -> None:
    """Raises CNIError when interface, MAC, addresses or routes differ; what later plugins added is tolerated."""
    with netns.opened(args.netns) as namespace, namespace.netlink() as inside:
        link = _existing_link(inside, args.ifname)
        position, described = _interface(args, previous)
        if described.get("mac") and described["mac"].lower() != link.mac:
            raise differs(f"{args.ifname} has MAC {link.mac}, not {described['mac']}")
        held = {found.cidr for found in addresses.dump(inside, index=link.index)}
        for ip in previous.get("ips", ()):
            if ip.get("interface", position) == position and ip["address"] not in held:
                raise differs(f"{args.ifname} has no address {ip['address']}")
        _check_routes(inside, previous.get("routes", ()))


def _interface(args: CmdArgs, previous: Result) -> tuple[int, dict[str, Any]]:
    for position, interface in enumerate(previous.get("interfaces", ())):
        if interface["name"] == args.ifname and interface.get("sandbox"):
            return position, interface
    raise CNIError(errors.INVALID_CONFIG, f"prevResult does not name {args.ifname}")


def _check_routes(inside: NetlinkSocket, wanted: Sequence[dict[str, Any]]) -> None:
    families = {addresses.family_of(route["dst"]) for route in wanted}
    found = [route for family in families for route in routes.dump(inside, family=family)]
    for route in wanted:
        gateway = route.get("gw")
        if not any(have.destination == route["dst"] and gateway in (None, have.gateway) for have in found):
            raise differs(f"route to {route['dst']} via {gateway} is missing")
