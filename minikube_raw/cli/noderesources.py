"""What `up` can say about the room on each node: reservations and eviction thresholds, in the kubelet's flags and words.

Nodes of one host share its disk, and evicting one node's pods does not free what another has filled: unless told otherwise
the thresholds for disks are 1 %, where a kubelet on a machine of its own has 10 and 15 %, and images stay until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from minikube_raw.api import quantity
from minikube_raw.cli.errors import Failure
from minikube_raw.kubelet import (
    cpuoptions,
    cpuplacement,
    cputopology,
    memorymanager,
    numa,
    reserved,
    shutdownperiods,
    topologyhints,
    topologymanager,
)

SHARED_HOST = {
    "memory.available": "100Mi",
    "nodefs.available": "1%",
    "nodefs.inodesFree": "1%",
    "imagefs.available": "1%",
    "imagefs.inodesFree": "1%",
}
_FLAGS = {
    "kube-reserved": "RESOURCE=AMOUNT,… kept from pods for our own processes.",
    "system-reserved": "RESOURCE=AMOUNT,… kept from pods for all others.",
    "eviction-hard": "SIGNAL<AMOUNT,… at which pods are evicted at once, as in memory.available<500Mi.",
    "eviction-soft": "SIGNAL<AMOUNT,… at which pods are evicted after their grace period.",
    "eviction-soft-grace-period": "SIGNAL=DURATION,… for the soft ones.",
    "eviction-minimum-reclaim": "SIGNAL=AMOUNT,… to free beyond a threshold.",
}
_IMAGES_STAY, _LOW, _YOUNGEST = 100, 80, "2m"
_TRANSITION = "5m"
_SYSCTLS = "NAME,… of sysctls that pods may set although they are not safe; a * at the end stands for any ending."
_SHUTDOWN = "shutdown-grace-period"
Command = Callable[..., Any]


def options(command: Command) -> Command:
    """Add the flags to a command, which gets each as text by its parameter name."""
    for flag, text in reversed(_FLAGS.items()):
        command = click.option(f"--{flag}", metavar="LIST", help=text)(command)
    for option in (
        click.option(
            "--eviction-pressure-transition-period",
            metavar="DURATION",
            default=_TRANSITION,
            show_default=True,
            help="How long a condition of the node outlasts its cause.",
        ),
        click.option(
            "--cpu-manager-policy",
            type=click.Choice(cputopology.POLICIES),
            default=cputopology.NONE,
            show_default=True,
            help="static: containers of Guaranteed pods that ask for whole CPUs have them for themselves.",
        ),
        click.option(
            "--cpu-manager-policy-options",
            metavar="LIST",
            help=f"OPTION=true,… of the static policy: {', '.join(cpuoptions.OPTIONS)}.",
        ),
        click.option(
            "--memory-manager-policy",
            type=click.Choice(memorymanager.POLICIES),
            default=memorymanager.NONE,
            show_default=True,
            help="Static: memory of Guaranteed pods is on NUMA nodes that have room for it.",
        ),
        click.option(
            "--reserved-memory",
            metavar="NODE:LIST",
            multiple=True,
            help="RESOURCE=AMOUNT,… kept from pods on a NUMA node, as in 0:memory=1Gi; all together what is kept from them anyway.",
        ),
        click.option(
            "--topology-manager-policy",
            type=click.Choice(topologyhints.POLICIES),
            default=topologyhints.NONE,
            show_default=True,
            help="Whether a pod's CPUs and memory have to be on the same NUMA nodes.",
        ),
        click.option(
            "--topology-manager-scope",
            type=click.Choice(topologymanager.SCOPES),
            default=topologymanager.CONTAINER,
            show_default=True,
            help="… those of each container, or of the pod as a whole.",
        ),
        click.option(
            "--topology-manager-policy-options",
            metavar="LIST",
            help=f"OPTION=VALUE,… of {topologymanager.CLOSEST} (true or false) and {topologymanager.ALLOWED}.",
        ),
        click.option(
            "--memory-swap-behavior",
            type=click.Choice(["NoSwap", "LimitedSwap"]),
            default="NoSwap",
            show_default=True,
            help="LimitedSwap: burstable pods may swap, each by what it asks of the memory (cgroup v2).",
        ),
        click.option(
            "--memory-qos/--no-memory-qos",
            default=False,
            show_default=True,
            help="Containers near their memory limit are slowed down before they are killed (cgroup v2).",
        ),
        click.option(
            "--memory-reservation-policy",
            type=click.Choice(["None", "TieredReservation"]),
            default="None",
            show_default=True,
            help="TieredReservation: what pods ask of the memory is kept from reclaim (with --memory-qos).",
        ),
        click.option(
            "--reserved-cpus",
            metavar="LIST",
            default="",
            help="CPUs, as in 0-1,4, that no container gets for itself; else the first, as many as are reserved.",
        ),
        click.option(
            f"--{_SHUTDOWN}",
            metavar="DURATION",
            default="0s",
            show_default=True,
            help="By how much a shutdown of the host is delayed for pods to end (by systemd-logind).",
        ),
        click.option(
            f"--{_SHUTDOWN}-critical-pods",
            metavar="DURATION",
            default="0s",
            show_default=True,
            help="… of which this much at its end is for critical pods.",
        ),
        click.option(
            f"--{_SHUTDOWN}-by-pod-priority",
            metavar="LIST",
            help="PRIORITY=DURATION,… instead of both: who has at least a priority goes in its time, the lowest first.",
        ),
        click.option(
            "--minimum-image-ttl-duration",
            metavar="DURATION",
            default=_YOUNGEST,
            show_default=True,
            help="How long an unused image stays in any case.",
        ),
        click.option(
            "--image-gc-low-threshold",
            type=click.IntRange(0, 100),
            default=_LOW,
            show_default=True,
            help="… until this much is.",
        ),
        click.option(
            "--image-gc-high-threshold",
            type=click.IntRange(0, 100),
            default=_IMAGES_STAY,
            help="Percent of the images' disk in use at which unused images are deleted; they stay unless this is given.",
        ),
    ):
        command = option(command)
    return click.option("--allowed-unsafe-sysctls", metavar="LIST", help=_SYSCTLS)(command)


def parse(given: dict[str, Any]) -> dict[str, Any]:
    """The KubeletOptions of what was given. Raises Failure."""
    sysctls = given.pop("allowed_unsafe_sysctls", None)
    others = _images(given) | _transition(given) | _plain(given) | _shutdown(given) | _numa(given)
    parsed = {name: _pairs(name, text) for name, text in given.items() if text is not None}
    try:
        reserved.check({name.replace("_", "-"): pairs for name, pairs in parsed.items()})
    except ValueError as error:
        raise Failure(str(error), "`minikube-raw up --help` shows the form") from error
    _check_cpus(others, parsed)
    _check_numa(others, parsed)
    allowed = {} if sysctls is None else {"allowed_unsafe_sysctls": [name for name in sysctls.split(",") if name]}
    return {"eviction_hard": SHARED_HOST, **parsed, **allowed, **others}


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    flag = "cpu-manager-policy-options"
    return {
        "cpu_manager_policy_options": _pairs(flag, given.pop(flag.replace("-", "_"), None) or ""),
    } | {
        name: given.pop(name, default)
        for name, default in (
            ("cpu_manager_policy", cputopology.NONE),
            ("reserved_cpus", ""),
            ("memory_swap_behavior", "NoSwap"),
            ("memory_qos", False),
            ("memory_reservation_policy", "None"),
        )
    }


def _check_cpus(asked: dict[str, Any], parsed: dict[str, dict[str, str]]) -> None:
    """Refuse a policy that cannot be, before a node refuses to start. Raises Failure."""
    try:
        chosen = cpuoptions.chosen(asked["cpu_manager_policy_options"])
        if cpuoptions.BY_SOCKET in chosen:
            cpuoptions.check_by_socket(cputopology.read(), asked["topology_manager_policy"])
    except ValueError as error:
        raise Failure(
            str(error), "--cpu-manager-policy-options is OPTION=true,… of those that can be together on this machine"
        ) from error
    if asked["cpu_manager_policy"] == cputopology.NONE and not asked["reserved_cpus"]:
        return
    held = [parsed.get(name, {}) for name in ("kube_reserved", "system_reserved")]
    try:
        topology = cputopology.read()
        millis = sum(quantity.resource(each, "cpu").milli() for each in held)
        cpuplacement.reserved_cpus(asked["reserved_cpus"], millis, topology, chosen)
    except ValueError as error:
        raise Failure(str(error), "name some with --reserved-cpus, or reserve cpu with --system-reserved") from error


def _numa(given: dict[str, Any]) -> dict[str, Any]:
    """Take what is about NUMA nodes out of what was given. Raises Failure."""
    flag = "topology-manager-policy-options"
    return {
        "memory_manager_policy": given.pop("memory_manager_policy", memorymanager.NONE),
        "reserved_memory": [text for each in given.pop("reserved_memory", ()) for text in each.split(";")],
        "topology_manager_policy": given.pop("topology_manager_policy", topologyhints.NONE),
        "topology_manager_scope": given.pop("topology_manager_scope", topologymanager.CONTAINER),
        "topology_manager_policy_options": _pairs(flag, given.pop(flag.replace("-", "_"), None) or ""),
    }


def _check_numa(asked: dict[str, Any], parsed: dict[str, dict[str, str]]) -> None:
    """Refuse what cannot be on this host, before a node refuses to start. Raises Failure."""
    machine = numa.read()
    held = [parsed.get(name, {}) for name in ("kube_reserved", "system_reserved")]
    hard = parsed.get("eviction_hard", SHARED_HOST)
    try:
        topologymanager.check(
            asked["topology_manager_policy"],
            asked["topology_manager_scope"],
            asked["topology_manager_policy_options"],
            len(machine),
        )
        kept = memorymanager.parse_reserved(asked["reserved_memory"])
        if asked["memory_manager_policy"] == memorymanager.STATIC and not hard.get("memory.available", "").endswith(
            "%"
        ):
            memorymanager.check_reserved(kept, machine, held, hard, capacity=0)
    except ValueError as error:
        cure = "--reserved-memory gives the NUMA nodes what --kube-reserved, --system-reserved and --eviction-hard keep"
        raise Failure(str(error), cure) from error


def _images(given: dict[str, Any]) -> dict[str, Any]:
    """Take what is about images out of what was given. Raises Failure."""
    high, low = given.pop("image_gc_high_threshold", _IMAGES_STAY), given.pop("image_gc_low_threshold", _LOW)
    if low >= high:
        raise Failure(
            f"--image-gc-low-threshold {low} is not below --image-gc-high-threshold {high}",
            "deletion ends at the low one",
        )
    youngest = _duration("minimum-image-ttl-duration", given.pop("minimum_image_ttl_duration", _YOUNGEST))
    return {
        "image_gc_high_threshold_percent": high,
        "image_gc_low_threshold_percent": low,
        "image_minimum_gc_age": youngest,
    }


def _shutdown(given: dict[str, Any]) -> dict[str, Any]:
    """Take what is about shutdowns out of what was given. Raises Failure."""
    flags = (_SHUTDOWN, f"{_SHUTDOWN}-critical-pods")
    whole, critical = (_duration(flag, given.pop(flag.replace("-", "_"), "0s")) for flag in flags)
    flag = f"{_SHUTDOWN}-by-pod-priority"
    listed = _pairs(flag, given.pop(flag.replace("-", "_"), None) or "")
    try:
        shutdownperiods.periods(whole, critical, listed)
    except ValueError as error:
        raise Failure(
            f"--{flag if listed else _SHUTDOWN}: {error}", "`minikube-raw up --help` shows the form"
        ) from error
    return {
        "shutdown_grace_period": whole,
        "shutdown_grace_period_critical_pods": critical,
        "shutdown_grace_period_by_pod_priority": listed,
    }


def _transition(given: dict[str, Any]) -> dict[str, float]:
    name = "eviction_pressure_transition_period"
    return {name: _duration(name.replace("_", "-"), given.pop(name, _TRANSITION))}


def _duration(flag: str, text: str) -> float:
    """Seconds. Raises Failure."""
    try:
        return reserved.duration(text)
    except ValueError as error:
        raise Failure(f"--{flag}: {error}", "write it as 2m or 90s") from error


def _pairs(name: str, text: str) -> dict[str, str]:
    separator = "<" if name in ("eviction_hard", "eviction_soft") else "="
    pairs = [part.strip().partition(separator) for part in text.split(",") if part.strip()]
    for key, found, _ in pairs:
        if not found:
            raise Failure(
                f"--{name.replace('_', '-')}: {key!r} has no {separator!r}", "write it as NAME" + separator + "AMOUNT"
            )
    return {key: value for key, _, value in pairs}
