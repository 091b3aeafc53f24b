"""Waits until a device carries traffic: a bridge port forwards only once its link is operationally up."""

from __future__ import annotations

import time

from minikube_raw.netlink import NetlinkSocket, links

from . import errors
from .errors import CNIError

PATIENCE_S = 10.0  # an ADD that gave up would begin anew, and wait for the same queue
FIRST_PAUSE_S = 0.0005


def wait_until_up(netlink: NetlinkSocket, name: str) -> None:
    """Returns when the device's operstate is UP. The kernel tells it from a work queue, mostly at once, at worst a
    second later and behind whoever holds the lock of all links (a host that ends many namespaces).
    """
    deadline = time.monotonic() + PATIENCE_S
    pause = FIRST_PAUSE_S
    while True:
        link = links.get(netlink, name)
        if link is not None and link.operstate == "UP":
            return
        if link is None or time.monotonic() > deadline:
            state = link.operstate if link else "gone"
            raise CNIError(errors.TRY_AGAIN_LATER, f"{name} did not come up in {PATIENCE_S} s", f"its state is {state}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
