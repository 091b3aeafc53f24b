"""The first process of a node on this host: its machine. Killing it is a power cut, for the kernel ends everything below.

Started as `python -I -S` with one argument, the path of a JSON file (see `main`). It makes the machine's namespaces,
waits until its network cable is plugged in, starts launcher and kubelet and starts them again when they end. It
imports linux/ and the standard library only, since it stays for as long as the node does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

from minikube_raw.linux import mounts, namespaces, sysctl
from minikube_raw.linux.cgroups import manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHUTDOWN_GRACE = 5.0  # seconds that SIGTERM gives everything on the machine before the lights go out
_MOST_PIDS = "kernel/pid_max"
RESTART_PAUSE = 1.0  # seconds between two starts of a service that ends at once


class Service:
    """A process that the machine keeps running, as systemd would with Restart=always."""

    def __init__(self, name: str, argv: list[str], log: str) -> None:
        self.name = name
        self.argv = argv
        self.log = log
        self.pid = 0
        self.started = -RESTART_PAUSE

    def start(self) -> None:
        """Fork and exec; output goes to the service's log."""
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(self.argv, self.log)
            finally:
                os._exit(127)

    def due(self) -> float:
        """Seconds until it should be started again; 0 or less means now."""
        return self.started + RESTART_PAUSE - time.monotonic()


def _become(argv: list[str], log: str) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execv(argv[0], argv)


def power_on(config: dict[str, Any]) -> int:
    """Enter the node's cgroup, make its namespaces and fork its PID 1; return that process' id as the host sees it."""
    group = manager(config["cgroup"])
    group.create()
    system = manager(config["cgroup"] + "/system")
    system.create()
    system.attach(os.getpid())
    flags = namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS
    namespaces.unshare(flags | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWPID)
    return os.fork()


def furnish(config: dict[str, Any], most_pids: str) -> None:
    """Give the machine its host name, its own /proc and /var/log, and an empty run directory that dies with it."""
    mounts.set_propagation("/", mounts.MS_SLAVE | mounts.MS_REC)
    mounts.set_propagation("/", mounts.MS_SHARED | mounts.MS_REC)  # for volumes with mountPropagation
    mounts.proc("/proc")
    # Since Linux 6.14 a new PID namespace shows 4194304, although the limits of those around it hold on.
    sysctl.ensure(_MOST_PIDS, most_pids)
    mounts.tmpfs(config["run_dir"], mode=0o700)
    if os.path.isdir("/var/log"):
        mounts.bind(config["var_log"], "/var/log", recursive=False)
        mounts.bind(config["pod_logs"], "/var/log/pods", recursive=False)
    socket.sethostname(config["hostname"])


def wait_for_cable() -> None:
    """Block until whoever started us has plugged our eth0 into the underlay and says so; leave if they vanish."""
    if sys.stdin.buffer.readline() != b"go\n":
        sys.exit("machine: whoever started this machine went away before its network was there")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)


def supervise(services: list[Service]) -> None:
    """Keep the services running and reap everyone who ends on this machine, until SIGTERM or SIGPWR."""
    ends = {signal.SIGTERM, signal.SIGINT, signal.SIGPWR}
    watched = ends | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    while True:
        waits = [service.due() for service in services if not service.pid]
        for service in services:
            if not service.pid and service.due() <= 0:
                service.start()
        pause = min((wait for wait in waits if wait > 0), default=None)
        received = signal.sigwaitinfo(watched) if pause is None else signal.sigtimedwait(watched, pause)
        if received and received.si_signo in ends:
            return
        ended = reap()
        for service in services:
            if service.pid in ended:
                print(f"machine: {service.name} ended with {ended[service.pid]}; starting it again", flush=True)
                service.pid = 0


def reap() -> dict[int, int]:
    """Collect every child that has ended: pid → wait status as an exit code."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def power_off() -> None:
    """Ask everything on the machine to end, wait a little; our own end kills what is left."""
    deadline = time.monotonic() + SHUTDOWN_GRACE
    os.kill(-1, signal.SIGTERM)
    while time.monotonic() < deadline:
        reap()
        try:
            os.kill(-1, 0)
        except ProcessLookupError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)


def main() -> None:
    """Run a machine. The JSON file holds {hostname, cgroup, run_dir, log_dir, var_log, pod_logs, services: [{name, argv}]}."""
    with open(sys.argv[1], "rb") as file:
        config = json.load(file)
    most_pids = sysctl.read(_MOST_PIDS)
    pid = power_on(config)
    if pid:
        os.write(1, b"%d\n" % pid)
        os._exit(0)
    furnish(config, most_pids)
    wait_for_cable()
    log_dir = config["log_dir"]
    log = os.open(f"{log_dir}/machine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    services = [Service(s["name"], s["argv"], f"{log_dir}/{s['name']}.log") for s in config["services"]]
    supervise(services)
    power_off()
