"""How CNI's ADD grows with the attachments that are on a bridge already: our bridge plugin, and the reference's beside it.

Ours is called in the process, as a kubelet calls it; the reference's is a program, and its host-local another. Ratios say what grows.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minikube_raw.linux.namespaces import new_namespace
from netplugins import bridge, skel
from tests.bench.peers import PLUGINS

BRIDGE = "benchadd0"
Add = Callable[[str, str, dict[str, Any]], object]  # container id, path of the namespace, configuration


def ours(count: int, folder: Path) -> list[float]:
    """Seconds that each of `count` ADDs takes, while the attachments before it stay."""
    return _adds(count, folder / "ours", lambda *each: skel.call(bridge, "ADD", _arguments(*each)))


def reference(count: int, folder: Path) -> list[float]:
    """The same of the reference plugin; nothing where it is not installed."""
    return _adds(count, folder / "reference", _execute) if PLUGINS.is_dir() else []


def _adds(count: int, folder: Path, add: Add) -> list[float]:
    ipam = {"type": "host-local", "dataDir": str(folder), "ranges": [[{"subnet": "10.246.0.0/16"}]]}
    config = {"cniVersion": "1.0.0", "name": "bench-add", "type": "bridge", "bridge": BRIDGE, "isDefaultGateway": True}
    held: list[int] = []
    try:
        return [_timed(add, number, held, config | {"ipam": ipam}) for number in range(count)]
    finally:
        for fd in held:  # and with the namespace the pair goes
            os.close(fd)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False)


def _timed(add: Add, number: int, held: list[int], config: dict[str, Any]) -> float:
    held.append(new_namespace("net"))
    began = time.monotonic()
    add(f"c{number}", f"/proc/{os.getpid()}/fd/{held[-1]}", config)
    return time.monotonic() - began


def _arguments(container: str, path: str, config: dict[str, Any]) -> skel.CmdArgs:
    return skel.CmdArgs(container, path, "eth0", config=config)


def _execute(container: str, path: str, config: dict[str, Any]) -> None:
    given = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": container, "CNI_NETNS": path, "CNI_IFNAME": "eth0"}
    environment = {**os.environ, **given, "CNI_PATH": str(PLUGINS)}
    subprocess.run(
        [PLUGINS / "bridge"], input=json.dumps(config).encode(), env=environment, check=True, capture_output=True
    )
