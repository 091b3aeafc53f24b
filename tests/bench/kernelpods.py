"""What the kernel alone takes for a pod's objects, made by hand: a network namespace, a veth into it on a bridge, cgroups.

No code of ours and no container: what grows here with the number of pods grows under every runtime. Most of it is that each
pod tells all the others of its IPv6 link-local address; made `quiet`, both ends of the veth have none.
"""

from __future__ import annotations

import os
import subprocess
import time

from minikube_raw.linux.cgroup_mounts import hierarchies
from tests.bench.peers import forget_cgroup

NAME = "handmade"


def starts(count: int, *, quiet: bool = False) -> list[float]:
    """Seconds that each of `count` takes, while those before it stay; all are gone at the end."""
    _ip(f"link add {NAME} type bridge\nlink set {NAME} up\n")
    roots = [f"{root}/{NAME}" for root in hierarchies().roots()]
    try:
        for root in roots:
            os.makedirs(root, exist_ok=True)
        return [_timed(number, roots, quiet) for number in range(count)]
    finally:
        names = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.split()
        _ip("".join(f"netns delete {name}\n" for name in names if name.startswith(NAME)) + f"link delete {NAME}\n")
        forget_cgroup(NAME)


def _timed(number: int, roots: list[str], quiet: bool) -> float:
    """Two of ip's batches, so that little of it is the start of programs; then the directories of a pod and its container."""
    pod = f"{NAME}{number}"
    address = f"10.247.{1 + number // 200}.{1 + number % 200}/16"
    hushed, hushed_inside = (f"link set dev {each} addrgenmode none\n" if quiet else "" for each in (pod, "eth0"))
    began = time.monotonic()
    _ip(
        f"netns add {pod}\n"
        f"link add {pod} type veth peer name eth0 netns {pod}\n"
        f"link set {pod} master {NAME}\n"
        f"{hushed}"
        f"link set {pod} up\n"
    )
    _ip(
        f"{hushed_inside}link set lo up\nlink set eth0 up\naddr add {address} dev eth0\n",
        "nsenter",
        f"--net=/run/netns/{pod}",
    )
    for root in roots:
        os.makedirs(f"{root}/{pod}/container")
    return time.monotonic() - began


def _ip(batch: str, *within: str) -> None:
    subprocess.run([*within, "ip", "-batch", "-"], input=batch, check=True, text=True)
