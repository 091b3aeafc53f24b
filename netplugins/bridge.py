"""The bridge plugin: a veth pair between the container and a Linux bridge, addresses by a delegated IPAM plugin.

ADD makes what is missing and undoes its own work when it fails; DEL reads ADD backwards and bears anything being gone;
CHECK compares the kernel with prevResult; GC removes what belongs to no valid attachment. The host end's name and
both MAC addresses are functions of (container id, ifname), so DEL and GC find them without any memory.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from minikube_raw.linux import sysctl
from minikube_raw.netlink import Message, NetlinkSocket, addresses, links, masquerade, routes
from minikube_raw.netlink.links import Link
from minikube_raw.netlink.routes import Neighbour, Route

from . import attachments, bridge_check, errors, netns
from .bridge_config import CONTAINER_MAC_PREFIX, BridgeConfig, container_mac, host_mac, host_name, parse
from .carrier import wait_until_up
from .errors import CNIError
from .invoke import invoke
from .results import Result, upgrade
from .skel import CmdArgs


@dataclass(frozen=True)
class _Ends:
    """The two sides of an attachment: a socket on the host, one inside, and the namespace itself."""

    host: NetlinkSocket
    inside: NetlinkSocket
    namespace: netns.Namespace


def cmd_add(args: CmdArgs) -> Result:
    """Attaches the container to the bridge."""
    config = parse(args)
    with (
        netns.opened(args.netns) as namespace,
        NetlinkSocket() as host,
        namespace.netlink() as inside,
        ExitStack() as undo,
    ):
        ends = _Ends(host, inside, namespace)
        _refuse_second(ends, args)
        ipam: Result = {}
        if config.ipam_type:
            # called before the delegate: a delegate that fails half-way is told DEL as well
            undo.callback(_release_quietly, args, config)
            ipam = _allocate(args, config)
        bridge = _ensure_bridge(host, config, ipam)
        result = _connect(ends, args, config, bridge, ipam, undo)
        if config.ip_masq:
            undo.callback(masquerade.remove, _masquerade_key(args, config))
            masquerade.ensure(_masquerade_key(args, config), _ips(ipam), exclude=config.masq_exclude)
        wait_until_up(host, host_name(args.container_id, args.ifname))
        # what the host sends into a bridge that just got its first port is dropped until the kernel has noticed
        if bridge.operstate != "UP":
            wait_until_up(host, bridge.name)
        undo.pop_all()
        return result


def _refuse_second(ends: _Ends, args: CmdArgs) -> None:
    """Before anything is allocated: undoing a second ADD must not touch what the first one made."""
    if links.get(ends.inside, args.ifname):
        raise CNIError(errors.ALREADY_ATTACHED, f"{args.ifname} already exists in {args.netns}", "DEL it first")
    if links.get(ends.host, host_name(args.container_id, args.ifname)):
        raise CNIError(
            errors.ALREADY_ATTACHED, f"{args.container_id} {args.ifname} is attached already", "DEL it first"
        )


def _ips(result: Result) -> list[str]:
    return [ip["address"] for ip in result.get("ips", ())]


def _allocate(args: CmdArgs, config: BridgeConfig) -> Result:
    answer = invoke(config.ipam_type, "ADD", args)
    result = upgrade(answer or {}, args.cni_version)
    if not result.get("ips"):
        raise CNIError(errors.INVALID_CONFIG, f"IPAM plugin {config.ipam_type} gave no addresses")
    return config.with_gateways(result)


def _release_quietly(args: CmdArgs, config: BridgeConfig) -> None:
    """The error that made ADD fail is the one to report; the runtime calls DEL after a failed ADD anyway."""
    with suppress(CNIError):
        invoke(config.ipam_type, "DEL", args)


def _ensure_bridge(host: NetlinkSocket, config: BridgeConfig, ipam: Result) -> Link:
    bridge = links.ensure_bridge(host, config.bridge, mtu=config.mtu, promiscuous=config.promiscuous or None)
    if config.is_gateway:
        wanted = config.gateways(ipam)
        if config.force_address:
            _remove_other_addresses(host, bridge.index, wanted)
        host.request(*(addresses.add(bridge.index, cidr) for cidr in wanted))
        for family in {addresses.family_of(cidr) for cidr in wanted}:
            sysctl.ensure(sysctl.FORWARDING[family], "1")
    return bridge


def _remove_other_addresses(host: NetlinkSocket, index: int, wanted: list[str]) -> None:
    families = {addresses.family_of(cidr) for cidr in wanted}
    for found in addresses.dump(host, index=index):
        if (
            found.cidr not in wanted
            and addresses.family_of(found.cidr) in families
            and not found.cidr.startswith("fe80:")
        ):
            host.request(addresses.delete(index, found.cidr))


def _connect(ends: _Ends, args: CmdArgs, config: BridgeConfig, bridge: Link, ipam: Result, undo: ExitStack) -> Result:
    """Makes the pair and configures both ends: two batches and one look-up of the container end's index."""
    name = host_name(args.container_id, args.ifname)
    mac = config.mac or container_mac(name)
    neighbours = _host_neighbours(bridge, ipam, mac)
    undo.callback(ends.host.request, *map(routes.delete_neighbour, neighbours), links.delete(name))
    ends.host.request(
        links.add_veth(
            name,
            peer_name=args.ifname,
            peer_netns=ends.namespace.fd,
            mac=host_mac(name),
            peer_mac=mac,
            mtu=config.mtu,
            master=bridge.index,
            up=False,
        ),
        # before it is up: after that, each change of it has the kernel look through the IPv6 routes of every port
        links.without_link_local(name),
        *_alias(name, args),
        *_port_options(name, config),
        links.bring_up(name),
        *map(routes.replace_neighbour, neighbours),
    )
    container = links.get(ends.inside, args.ifname)
    if container is None:
        raise CNIError(errors.IO_FAILURE, f"{args.ifname} vanished from {args.netns}")
    if _has_ipv6(ipam):
        ends.namespace.run(lambda: sysctl.ensure(f"net/ipv6/conf/{args.ifname}/disable_ipv6", "0"))
    ends.inside.request(*_container_messages(container, bridge, config, ipam))
    return _result(args, config, bridge, ipam, name, container)


def _alias(name: str, args: CmdArgs) -> list[Message]:
    """`ip link` on the host tells whose the pair is, if the runtime has told us."""
    pod = args.extra.get("K8S_POD_NAME")
    return [links.alias(name, f"{args.extra.get('K8S_POD_NAMESPACE', '')}/{pod}")] if pod else []


def _port_options(name: str, config: BridgeConfig) -> list[Message]:
    if not config.hairpin and not config.isolated:
        return []
    return [links.bridge_port(name, hairpin=config.hairpin or None, isolated=config.isolated or None)]


def _host_neighbours(bridge: Link, ipam: Result, mac: str) -> list[Neighbour]:
    """Permanent entries for the container's addresses: no ARP, and no share of the hosts' common neighbour table
    limit.
    """
    return [Neighbour(bridge.index, cidr.partition("/")[0], mac) for cidr in _ips(ipam)]


def _has_ipv6(ipam: Result) -> bool:
    return any(":" in cidr for cidr in _ips(ipam))


def _container_messages(container: Link, bridge: Link, config: BridgeConfig, ipam: Result) -> list[Message]:
    index = container.index
    # without IPAM nobody knows which families the link has: a router there may give IPv6 addresses
    messages = [links.without_link_local(container.name)] if _ips(ipam) and not _has_ipv6(ipam) else []
    messages += [links.bring_up(container.name)]
    messages += [addresses.add(index, cidr) for cidr in _ips(ipam)]
    gateways = [cidr.partition("/")[0] for cidr in config.gateways(ipam)] if config.is_gateway else []
    messages += [routes.replace_neighbour(Neighbour(index, gateway, bridge.mac)) for gateway in gateways]
    return messages + [routes.replace(route) for route in container_routes(index, ipam)]


def container_routes(index: int, ipam: Result) -> list[Route]:
    """The result's routes; one without a gateway goes by the gateway of the first address of its family."""
    wanted = []
    for route in ipam.get("routes", ()):
        gateway = route.get("gw") or next(
            (
                ip["gateway"]
                for ip in ipam["ips"]
                if ip.get("gateway") and addresses.family_of(ip["address"]) == addresses.family_of(route["dst"])
            ),
            "",
        )
        wanted.append(Route(route["dst"], index, gateway, mtu=route.get("mtu", 0)))
    return wanted


def _result(args: CmdArgs, config: BridgeConfig, bridge: Link, ipam: Result, name: str, container: Link) -> Result:
    interfaces = [
        {"name": bridge.name, "mac": bridge.mac, "mtu": bridge.mtu},
        {"name": name, "mac": host_mac(name), "mtu": container.mtu},
        {"name": args.ifname, "mac": container.mac, "mtu": container.mtu, "sandbox": args.netns},
    ]
    result: dict[str, Any] = {"interfaces": interfaces}
    result["ips"] = [ip | {"interface": 2} for ip in ipam.get("ips", ())]
    result["routes"] = ipam.get("routes", [])
    result["dns"] = config.dns or ipam.get("dns", {})
    return {key: value for key, value in result.items() if value}


def cmd_del(args: CmdArgs) -> None:
    """Detaches the container; everything is tried, the first failure is raised at the end."""
    config = parse(args)
    failures: list[Exception] = []
    known = _ips(args.previous or {})
    steps: list[Callable[[], object]] = [lambda: _disconnect(args, config, known)]
    if config.ip_masq:
        steps.insert(0, lambda: masquerade.remove(_masquerade_key(args, config)))
    if config.ipam_type:
        steps.append(lambda: invoke(config.ipam_type, "DEL", args))
    for step in steps:
        try:
            step()
        except (OSError, CNIError) as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _disconnect(args: CmdArgs, config: BridgeConfig, known: list[str]) -> None:
    with NetlinkSocket() as host:
        if bridge := links.get(host, config.bridge):
            host.request(
                *(routes.delete_neighbour(entry) for entry in _entries_of(host, bridge, args, known, config.mac))
            )
        name = host_name(args.container_id, args.ifname)
        if links.get(host, name):
            host.request(links.delete(name))
            return
    with netns.opened_if_there(args.netns) as namespace:
        # a pair made by another plugin (the reference names its host end at random) goes by the container's end
        if namespace:
            with namespace.netlink() as inside:
                link = links.get(inside, args.ifname)
                if link and link.kind == "veth":
                    inside.request(links.delete(args.ifname))


def _entries_of(host: NetlinkSocket, bridge: Link, args: CmdArgs, known: list[str], config_mac: str) -> list[Neighbour]:
    """The container's neighbour entries: by prevResult's addresses, else by its MAC address."""
    if known:
        return [Neighbour(bridge.index, cidr.partition("/")[0], "") for cidr in known]
    mac = config_mac or container_mac(host_name(args.container_id, args.ifname))
    families = (socket.AF_INET, socket.AF_INET6)
    found = [entry for family in families for entry in routes.dump_neighbours(host, bridge.index, family=family)]
    return [entry for entry in found if entry.mac == mac]


def _masquerade_key(args: CmdArgs, config: BridgeConfig) -> masquerade.Key:
    return masquerade.Key(config.network, args.container_id, args.ifname)


def cmd_check(args: CmdArgs) -> None:
    """Raises CNIError 100 naming the first thing that differs from prevResult."""
    config, previous = parse(args), args.require_previous()
    if config.ipam_type:
        invoke(config.ipam_type, "CHECK", args)
    bridge_check.check_host(config, previous)
    bridge_check.check_container(args, previous)
    if config.ip_masq and not masquerade.present(
        _masquerade_key(args, config), _ips(previous), exclude=config.masq_exclude
    ):
        raise CNIError(errors.CHECK_FAILED, f"the masquerade rule of {args.container_id} is missing")


def cmd_gc(args: CmdArgs) -> None:
    """Removes links, neighbour entries and masquerade entries of attachments that are not valid, then the IPAM's
    records.
    """
    config, valid = parse(args), attachments.valid(args)
    if valid is not None:
        _collect_links(config, valid)
        if config.ip_masq:
            masquerade.keep_only(config.network, valid)
    if config.ipam_type:
        invoke(config.ipam_type, "GC", args)


def _collect_links(config: BridgeConfig, valid: set[attachments.Attachment]) -> None:
    """Host ends of our making are known by name and MAC; a neighbour entry removed by mistake costs one ARP, no more."""
    names = {host_name(container_id, ifname) for container_id, ifname in valid}
    macs = {container_mac(name) for name in names}
    with NetlinkSocket() as host:
        bridge = links.get(host, config.bridge)
        if bridge is None:
            return
        for port in links.dump(host, master=bridge.index):
            if port.name not in names and port.mac == host_mac(port.name):
                host.request(links.delete(port.name))
        for family in (socket.AF_INET, socket.AF_INET6):
            for entry in routes.dump_neighbours(host, bridge.index, family=family):
                if entry.mac.startswith(f"{CONTAINER_MAC_PREFIX}:") and entry.mac not in macs:
                    host.request(routes.delete_neighbour(entry))


def cmd_status(args: CmdArgs) -> None:
    """Ready when the IPAM plugin is."""
    config = parse(args)
    if config.ipam_type:
        invoke(config.ipam_type, "STATUS", args)
