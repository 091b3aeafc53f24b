"""A container's own document as the config.json of an OCI bundle (runtime-spec 1.1), so that runc runs what we run.

Pure: what init would find out by itself (who the user is, which capabilities this host has to give) comes as arguments.
Namespaces of the pod are joined by path; hooks there are none. bundling.py gathers the facts and writes the directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from minikube_raw.linux import capabilities
from minikube_raw.linux.cgroups import DEFAULT_DEVICES, DeviceRule

from .sandbox import SHM_SIZE
from .spec import OCI_VERSION
from .users import User

Json = dict[str, Any]
Device = tuple[str, int, int]  # path below /dev, mode with type, device number

_NAMESPACES = ("pid", "network", "ipc", "uts")  # in the order that config.json lists them; mount and cgroup are new
# /dev/shm is the pod's, in its keeper's mount namespace, and no path leads there: the bundle has one of the same kind.
_SHM = {
    "destination": "/dev/shm",
    "type": "tmpfs",
    "source": "shm",
    "options": ["nosuid", "noexec", "nodev", "mode=1777", f"size={SHM_SIZE}"],
}


class Facts(msgspec.Struct, frozen=True):
    """What only the host knows of a container that is about to be put into a bundle.

    `namespaces` maps pid, network, ipc and uts to the path of the pod's, or to "" for a new one; one that is missing is the
    node's. `available` is the bounding set here, `shm` where the pod's /dev/shm lies, `devices` what a privileged one gets,
    `unlimited` the names in linux.resources that this host's cgroups have no files for: another runtime would refuse them.
    """

    user: User
    namespaces: Mapping[str, str]
    available: int
    shm: str = ""
    oom_score_adj: int = 0
    devices: Sequence[Device] = ()
    seccomp: Json | None = None  # the profile, which our own document has compiled only
    unlimited: Collection[str] = ()


def config(spec: Mapping[str, Any], facts: Facts) -> Json:
    """Returns config.json for one of our documents (spec.container_spec)."""
    document: Json = {
        "ociVersion": OCI_VERSION,
        "process": _process(spec["process"], facts),
        "root": spec["root"],
        "mounts": [_mount(entry, facts.shm) for entry in spec["mounts"]],
        "linux": _linux(spec["linux"], facts),
    }
    if propagation := _root_propagation(spec["mounts"]):
        document["linux"]["rootfsPropagation"] = propagation
    if "uts" in facts.namespaces:  # without a namespace of the pod's own it would be the node's name that changes
        document["hostname"] = spec["hostname"]
    return document


def _process(process: Mapping[str, Any], facts: Facts) -> Json:
    held = capabilities.names(capabilities.mask(process["capabilities"]) & facts.available)
    return {
        **{name: process[name] for name in ("terminal", "args", "env", "cwd", "rlimits", "noNewPrivileges")},
        **({"apparmorProfile": process["apparmorProfile"]} if process.get("apparmorProfile") else {}),
        "user": {
            "uid": facts.user.uid,
            "gid": facts.user.gid,
            "additionalGids": facts.user.groups,
            "umask": process["umask"],
        },
        "capabilities": {"bounding": held, "effective": held, "permitted": held},
        "oomScoreAdj": facts.oom_score_adj,
    }


def _mount(entry: Mapping[str, Any], shm: str) -> Json:
    if shm and entry["source"] == shm:
        return dict(_SHM)
    if entry["type"] == "image":
        return _image(entry)
    return {name: entry[name] for name in ("destination", "type", "source", "options")}


def _image(entry: Mapping[str, Any]) -> Json:
    """An image volume: an overlay of its layers, or a bind of the only one. Raises LookupError for a part of one."""
    if entry["path"]:
        raise LookupError(f"{entry['destination']}: a subPath of an image volume cannot be in a bundle")
    place, options, layers = {"destination": entry["destination"]}, list(entry["options"]), entry["layers"]
    if len(layers) == 1:
        return {**place, "type": "bind", "source": layers[0], "options": ["bind", *options]}
    return {**place, "type": "overlay", "source": "overlay", "options": [*options, f"lowerdir={':'.join(layers)}"]}


def _root_propagation(mounts: Sequence[Mapping[str, Any]]) -> str:
    """As containerd has it: a volume that passes mounts on needs a root that runc has not cut off from the host's."""
    options = [option for mount in mounts for option in mount["options"]]
    return next((wanted for wanted in ("rshared", "rslave") if wanted in options), "")


def _linux(linux: Mapping[str, Any], facts: Facts) -> Json:
    own = [_namespace(kind, facts.namespaces[kind]) for kind in _NAMESPACES if kind in facts.namespaces]
    limits = {name: limit for name, limit in linux["resources"].items() if name not in facts.unlimited}
    return {
        "namespaces": [*own, {"type": "mount"}, {"type": "cgroup"}],
        # Beside the container's own: runc removes its cgroup in the end, and will refuse one that somebody is in.
        "cgroupsPath": f"{linux['cgroupsPath']}-bundle",
        "resources": {
            **limits,
            "devices": [*_device_rules(linux["hostDevices"]), *linux.get("allowedDevices", ())],
        },
        "devices": [_device(device) for device in facts.devices],
        "maskedPaths": linux["maskedPaths"],
        "readonlyPaths": linux["readonlyPaths"],
        **({"seccomp": facts.seccomp} if facts.seccomp is not None else {}),
    }


def _namespace(kind: str, path: str) -> Json:
    return {"type": kind, "path": path} if path else {"type": kind}


def _device_rules(all_devices: bool) -> list[Json]:
    if all_devices:
        return [{"allow": True, "access": "rwm"}]
    return [{"allow": False, "access": "rwm"}, *map(_device_rule, DEFAULT_DEVICES)]


def _device_rule(rule: DeviceRule) -> Json:
    numbers = {name: number for name, number in (("major", rule.major), ("minor", rule.minor)) if number is not None}
    return {"allow": True, "type": rule.kind, **numbers, "access": rule.access}


def _device(device: Device) -> Json:
    path, mode, number = device
    return {
        "path": f"/dev/{path}",
        "type": "b" if stat.S_ISBLK(mode) else "c",
        "major": os.major(number),
        "minor": os.minor(number),
        "fileMode": stat.S_IMODE(mode),
        "uid": 0,
        "gid": 0,
    }
