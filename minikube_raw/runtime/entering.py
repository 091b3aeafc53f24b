"""The way of a program of ours into a running container: through a process in between, which joins it first.

Whoever is in a PID namespace together with CAP_SYS_PTRACE looks through /proc/PID/root and /proc/PID/fd of all that is there.
So what is born there has the container's root already, and none of the node's descriptors (CVE-2016-9962 and what is left of it).
"""

from __future__ import annotations

import os

from minikube_raw.linux import fds, namespaces, pidfd, process, signals
from minikube_raw.linux.cgroups import manager

from . import init, sandbox, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .init import Job


def fork_inside(job: Job, container_pidfd: int, pid_namespace: int, *, user_namespace: bool) -> tuple[int, int]:
    """Forks a child of ours that is in the container but for its user: (pid, pidfd), or (0, -1) in it.

    It is a member of `pid_namespace` unless that is -1, and keeps the descriptors of `job`. Raises OSError.
    """
    ours, theirs = wire.pair()
    between, between_pidfd = sandbox.fork_into(job.cgroup, 0)
    if between == 0:
        born = False
        try:
            _join(job, theirs.fileno(), container_pidfd, pid_namespace, user_namespace=user_namespace)
            pid, child = namespaces.clone_child(namespaces.CLONE_PARENT)
            if pid == 0:
                born = True
                theirs.close()
                return 0, -1
            wire.send(theirs, {"pid": pid}, [child])
        except OSError as error:
            wire.send(theirs, {"error": error.strerror or str(error), "errno": error.errno or 0})
        finally:
            if not born:
                os._exit(0)
    theirs.close()
    try:
        message, received = wire.receive(ours)
    finally:
        ours.close()
        pidfd.reap(between_pidfd)
        os.close(between_pidfd)
    if "error" in message:
        raise OSError(message["errno"], message["error"])
    return message["pid"], received[0]


def _join(job: Job, answer: int, container_pidfd: int, pid_namespace: int, *, user_namespace: bool) -> None:
    """Lets go of what is the node's and joins the container's cgroup and namespaces."""
    process.set_parent_death_signal(signals.SIGKILL)
    kept = [answer, job.status.fileno(), job.null, *job.streams]
    fds.close_all_but([0, 1, 2, *kept, container_pidfd, pid_namespace])
    init.set_limits(job.spec["process"])
    manager(job.cgroup).attach(0)
    for number in (0, 1, 2):
        os.dup2(job.null, number)
    if pid_namespace >= 0:
        namespaces.setns(pid_namespace, namespaces.CLONE_NEWPID)
    users = namespaces.CLONE_NEWUSER if user_namespace else 0
    namespaces.setns(container_pidfd, users | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWCGROUP)
    fds.close_all_but([0, 1, 2, *kept])
