"""The host-local IPAM plugin: gives addresses out of ranges in the configuration, remembered in files on this host.

Round-robin per range set, so that a freed address is not given again at once. ADD, DEL and CHECK look for records of
(container id, ifname); GC frees what no valid attachment holds. Certain addresses may be wished for by runtimeConfig.ips,
args.cni.ips and CNI_ARGS' IP.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from . import attachments, errors, resolvconf
from .errors import CNIError
from .host_local_store import Store
from .ranges import IPAddress, Range, RangeSet, candidates, invalid, parse_sets
from .results import Result
from .skel import CmdArgs


def _ipam(args: CmdArgs) -> dict[str, Any]:
    ipam = args.config.get("ipam")
    if not isinstance(ipam, dict):
        raise invalid('the "ipam" section is missing')
    return ipam


def _locked(args: CmdArgs) -> Any:
    return Store.locked(_ipam(args).get("dataDir", ""), args.config["name"])


def _range_sets(args: CmdArgs) -> list[RangeSet]:
    runtime_ranges = (args.config.get("runtimeConfig") or {}).get("ipRanges") or []
    return parse_sets(_ipam(args), runtime_ranges, args.cni_version)


def requested(args: CmdArgs) -> list[IPAddress]:
    """The addresses the caller asks for by name; a prefix length is tolerated. Raises CNIError for what is no address."""
    wishes = list((args.config.get("runtimeConfig") or {}).get("ips") or [])
    wishes += ((args.config.get("args") or {}).get("cni") or {}).get("ips") or []
    wishes += filter(None, args.extra.get("IP", "").split(","))
    try:
        return [ipaddress.ip_interface(wish).ip for wish in wishes]
    except ValueError as error:
        raise invalid("invalid requested address", str(error)) from error


def cmd_add(args: CmdArgs) -> Result:
    """Gives one address per range set; all or none."""
    ipam, sets, wishes = _ipam(args), _range_sets(args), requested(args)
    dns = resolvconf.read(ipam["resolvConf"]) if ipam.get("resolvConf") else {}
    with _locked(args) as store:
        if held := store.held_by(args.container_id, args.ifname):
            raise CNIError(
                errors.ALREADY_ATTACHED,
                f"{', '.join(held)} already allocated to {args.container_id} {args.ifname}",
                "DEL it first",
            )
        ips = _allocate(store, sets, wishes, args)
    return {"ips": ips, "routes": ipam.get("routes") or [], "dns": dns}


def _allocate(store: Store, sets: list[RangeSet], wishes: list[IPAddress], args: CmdArgs) -> list[dict[str, str]]:
    """Reserves an address per set; frees them all again when one set has none or a wish stays open."""
    given: list[tuple[IPAddress, Range]] = []
    try:
        for number, entries in enumerate(sets):
            wish = next((address for address in wishes if any(address in entry for entry in entries)), None)
            given.append(_take(store, number, entries, wish, (args.container_id, args.ifname)))
            if wish:
                wishes = [address for address in wishes if address != wish]
        if wishes:
            raise invalid(f"failed to allocate all requested IPs: {', '.join(map(str, wishes))}", "no range has them")
    except BaseException:
        store.release(str(address) for address, _ in given)
        raise
    return [
        {"address": f"{address}/{entry.subnet.prefixlen}", "gateway": str(entry.gateway)} for address, entry in given
    ]


def _take(
    store: Store, number: int, entries: RangeSet, wish: IPAddress | None, owner: tuple[str, str]
) -> tuple[IPAddress, Range]:
    if wish is not None:
        entry = next(entry for entry in entries if wish in entry)
        if wish == entry.gateway:
            raise invalid(f"requested IP {wish} is subnet's gateway")
        if not store.reserve(wish, owner, number):
            raise CNIError(
                errors.TRY_AGAIN_LATER, f"requested IP {wish} is not available in range set {_named(entries)}"
            )
        return wish, entry
    taken: set[str] | None = None
    for address, entry in candidates(entries, store.last_reserved(number)):
        # a taken name is passed over by one look-up; reserve() decides, and takes over a record cut off by a crash
        if taken is not None and str(address) in taken and store.owner(str(address)) is not None:
            continue
        if store.reserve(address, owner, number):
            return address, entry
        taken = taken or set(store.addresses())  # only now: the first one is mostly free, and the list is long
    raise CNIError(
        errors.TRY_AGAIN_LATER,
        f"no IP addresses available in range set: {_named(entries)}",
        f"all are recorded in {store.directory}; GC frees those of containers that are gone",
    )


def _named(entries: RangeSet) -> str:
    return ",".join(map(str, entries))


def cmd_del(args: CmdArgs) -> None:
    """Frees what the attachment holds; no ranges are needed for that, and nothing held is fine."""
    with _locked(args) as store:
        store.release(store.held_by(args.container_id, args.ifname))


def cmd_check(args: CmdArgs) -> None:
    """Raises CNIError when the attachment holds no address, or not the one prevResult names."""
    with _locked(args) as store:
        held = store.held_by(args.container_id, args.ifname)
    if not held:
        raise CNIError(errors.CHECK_FAILED, f"no address is recorded for {args.container_id} {args.ifname}")


def cmd_gc(args: CmdArgs) -> None:
    """Frees every address whose (container id, ifname) is not a valid attachment."""
    valid = attachments.valid(args)
    if valid is None:
        return
    with _locked(args) as store:
        owners = store.owners()
        store.release(
            address for address in store.addresses() if not attachments.holds(valid, owners.get(address, ("", "")))
        )


def cmd_status(args: CmdArgs) -> None:
    """Raises CNIError 50 when a range set has no free address."""
    sets = _range_sets(args)
    with _locked(args) as store:
        taken = set(store.addresses())
    for entries in sets:
        if all(str(address) in taken for address, _ in candidates(entries, None)):
            raise CNIError(errors.NOT_AVAILABLE, f"no IP addresses available in range set: {_named(entries)}")
