"""Starting, finding and ending the machines of one host's cluster: the outside of `machine.init`.

A machine is up once its network cable is plugged in and it has been told so; until then it waits, and it leaves by
itself when whoever started it dies.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from minikube_raw.linux.cgroups import Limits, manager
from minikube_raw.machine import processes
from minikube_raw.machine.init import SHUTDOWN_GRACE
from minikube_raw.machine.layout import Layout, NodeRecord

PACKAGE_ROOT = str(Path(__file__).parents[2])
# -I -S leaves site-packages and the environment out: 10 ms instead of 30, and nothing but linux/ can be imported.
INIT = f"import sys; sys.path.append({PACKAGE_ROOT!r}); from minikube_raw.machine.init import main; main()"


class Service(msgspec.Struct, frozen=True):
    """A process that the machine keeps running; its output goes to NAME.log."""

    name: str
    argv: Sequence[str]


class MachineConfig(msgspec.Struct, frozen=True):
    """What machine.init reads."""

    hostname: str
    cgroup: str
    run_dir: str
    log_dir: str
    var_log: str  # what the node sees as /var/log
    pod_logs: str  # and as /var/log/pods
    services: Sequence[Service]


def record(layout: Layout, node: NodeRecord) -> Path:
    """Where the machine's process is recorded."""
    return layout.process(f"machine-{node.name}")


def find(layout: Layout, node: NodeRecord) -> int | None:
    """The pid of the node's machine as the host sees it, None if it is off."""
    return processes.find(record(layout, node))


def log_dir(layout: Layout, node: NodeRecord) -> Path:
    """Where the machine's services log."""
    return layout.logs / node.name


def power_on(
    layout: Layout,
    node: NodeRecord,
    services: Sequence[Service],
    limits: Limits,
    plug: Callable[[NodeRecord, int], None],
) -> int:
    """Start a machine, let `plug(node, its network namespace)` connect it, and return its pid. Raises OSError."""
    logs = log_dir(layout, node)
    state = layout.node_state(node.name)
    var_log, pod_logs = state / "var-log", state / "logs"
    for folder in (state, layout.node_run(node.name), logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (var_log / "pods", pod_logs):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    group = manager(layout.cgroup(node.name))
    group.create()
    group.set_limits(limits)
    config = state / "machine.json"
    wanted = MachineConfig(
        hostname=node.name,
        cgroup=layout.cgroup(node.name),
        run_dir=str(layout.node_run(node.name)),
        log_dir=str(logs),
        var_log=str(var_log),
        pod_logs=str(pod_logs),
        services=services,
    )
    config.write_bytes(msgspec.json.encode(wanted))
    with _starter(config, logs / "machine.log") as starter:
        assert starter.stdout is not None and starter.stdin is not None
        line = starter.stdout.readline()
        if not line:
            raise OSError(f"the machine of {node.name} did not start: see {logs / 'machine.log'}")
        pid = int(line)
        processes.remember(pid, record(layout, node))
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            plug(node, netns)
        finally:
            os.close(netns)
        starter.stdin.write(b"go\n")
    return pid


def power_off(layout: Layout, node: NodeRecord) -> None:
    """Shut a machine down as its power button does: SIGTERM to everything on it, then darkness. Off already is fine."""
    processes.end(record(layout, node), grace=SHUTDOWN_GRACE + 5)


def _starter(config: Path, log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as errors:
        return subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "-c", INIT, str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
