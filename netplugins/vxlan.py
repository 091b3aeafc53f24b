"""The vxlan plugin: this host's share of a VXLAN overlay, then a bridge for the container.

As flannel's: the device vxlan.<VNI> with entries for each peer in the configuration, and the container by the bridge plugin and
host-local with MTU, default gateway and masquerading filled in. Keys: vni (1), port (8472), publicIP (found by the route to the first
peer), network and subnet (CIDR of all and of this host's containers), peers [{publicIP, subnet, vtepMAC}], mtu,
ipMasq (true), delegate (keys for the bridge plugin). Without `peers` somebody else, such as a node agent, keeps the
entries.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from minikube_raw.netlink import NetlinkSocket, links, overlay, routes
from minikube_raw.netlink.overlay import Peer

from . import errors
from .errors import CNIError
from .invoke import invoke
from .results import Result, upgrade
from .skel import CmdArgs

# What the delegate must see of the configuration besides its own keys.
PASSED_ON = (
    "name",
    "cniVersion",
    "args",
    "runtimeConfig",
    "prevResult",
    "cni.dev/valid-attachments",
    "cni.dev/attachments",
)


@dataclass(frozen=True)
class VxlanConfig:
    """The plugin's own keys; `peers` is None when they are somebody else's business."""

    vni: int
    port: int
    public_ip: str
    network: str
    subnet: str
    mtu: int
    peers: tuple[Peer, ...] | None

    @property
    def device(self) -> str:
        """The VXLAN device's name."""
        return f"vxlan.{self.vni}"


def parse(args: CmdArgs) -> VxlanConfig:
    """Reads the configuration; raises CNIError 7 for what cannot be."""
    config = args.config
    vni, port = int(config.get("vni", 1)), int(config.get("port", overlay.PORT))
    if not 0 < vni < 1 << 24 or not 0 < port < 1 << 16:
        raise CNIError(errors.INVALID_CONFIG, f"invalid vni {vni} or port {port}", "1 to 16777215, 1 to 65535")
    try:
        subnet = str(ipaddress.ip_network(config["subnet"]))
        network = str(ipaddress.ip_network(config.get("network") or subnet))
        peers = config.get("peers")
        parsed = None if peers is None else tuple(_parse_peer(peer) for peer in peers)
    except (KeyError, ValueError) as error:
        raise CNIError(errors.INVALID_CONFIG, "invalid subnet, network or peer", str(error)) from error
    return VxlanConfig(vni, port, config.get("publicIP") or "", network, subnet, int(config.get("mtu") or 0), parsed)


def _parse_peer(peer: dict[str, Any]) -> Peer:
    public_ip, subnet = str(ipaddress.ip_address(peer["publicIP"])), str(ipaddress.ip_network(peer["subnet"]))
    return Peer(peer.get("name") or public_ip, public_ip, subnet, peer.get("vtepMAC") or overlay.vtep_mac(public_ip))


def _public_ip(netlink: NetlinkSocket, config: VxlanConfig) -> str:
    if config.public_ip:
        return config.public_ip
    target = config.peers[0].public_ip if config.peers else "192.0.2.1"  # any address by the default route (RFC 5737)
    route = routes.uplink_to(netlink, target)
    if route is None or not route.source:
        raise CNIError(
            errors.NOT_AVAILABLE, "no uplink for the overlay network", f'no route to {target}; set "publicIP"'
        )
    return route.source


def _others(config: VxlanConfig, public_ip: str) -> list[Peer]:
    return [peer for peer in config.peers or () if peer.public_ip != public_ip]


def _delegate(args: CmdArgs, config: VxlanConfig, mtu: int) -> CmdArgs:
    """The bridge plugin's arguments; what the configuration's `delegate` says wins."""
    own = {key: args.config[key] for key in PASSED_ON if key in args.config}
    bridge: dict[str, Any] = {
        "type": "bridge",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": args.config.get("ipMasq", True),
        "masqExclude": [config.network],
        "ipam": {"type": "host-local", "ranges": [[{"subnet": config.subnet}]], **(args.config.get("ipam") or {})},
    }
    if mtu:
        bridge["mtu"] = mtu
    bridge |= args.config.get("delegate") or {}
    return CmdArgs(args.container_id, args.netns, args.ifname, args.args, args.path, own | bridge)


def cmd_add(args: CmdArgs) -> Result:
    """Ensures the device and its entries, then attaches the container to the bridge."""
    config = parse(args)
    with NetlinkSocket() as netlink:
        public_ip = _public_ip(netlink, config)
        device = overlay.ensure_device(netlink, public_ip=public_ip, vni=config.vni, port=config.port, mtu=config.mtu)
        overlay.ensure_address(netlink, device, config.subnet)
        if config.peers is not None:
            changes = overlay.sync(netlink, device, _others(config, public_ip))
            if changes.errors:
                raise changes.errors[0]
    delegate = _delegate(args, config, device.mtu)
    return upgrade(invoke(delegate.config["type"], "ADD", delegate) or {}, args.cni_version)


def cmd_del(args: CmdArgs) -> None:
    """Detaches the container; device and entries are shared and stay."""
    delegate = _delegate(args, parse(args), 0)
    invoke(delegate.config["type"], "DEL", delegate)


def cmd_check(args: CmdArgs) -> None:
    """Raises CNIError 100 when the device is missing or down, or a peer's entries are not as configured."""
    config = parse(args)
    with NetlinkSocket() as netlink:
        device = links.get(netlink, config.device)
        if device is None or not device.up:
            raise CNIError(errors.CHECK_FAILED, f"{config.device} is {'down' if device else 'missing'}")
        if config.peers is not None:
            _, missing = overlay.plan(netlink, device, _others(config, _public_ip(netlink, config)))
            if missing:
                what = "; ".join(f"{message.what} {message.subject}" for message in missing)
                raise CNIError(errors.CHECK_FAILED, f"entries on {config.device} are missing", what)
    delegate = _delegate(args, config, 0)
    invoke(delegate.config["type"], "CHECK", delegate)


def cmd_gc(args: CmdArgs) -> None:
    """The bridge's business: nothing here belongs to an attachment."""
    delegate = _delegate(args, parse(args), 0)
    invoke(delegate.config["type"], "GC", delegate)


def cmd_status(args: CmdArgs) -> None:
    """Raises CNIError 50 without an uplink, or what the bridge says."""
    config = parse(args)
    with NetlinkSocket() as netlink:
        public_ip = _public_ip(netlink, config)
        try:
            overlay.find_uplink(netlink, public_ip)
        except OSError as error:
            raise CNIError(errors.NOT_AVAILABLE, "no uplink for the overlay network", str(error)) from error
    delegate = _delegate(args, config, 0)
    invoke(delegate.config["type"], "STATUS", delegate)
