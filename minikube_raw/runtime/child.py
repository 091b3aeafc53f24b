"""A child of the keeper, forked by its worker, that waits to become a container's first process: forked early, told late what it will be.

One is forked while CNI makes the pod's network, when the worker has nothing else to do; by the time the first container is
started its page faults and namespaces are paid for. Its job comes as a message on its status socket.
"""

from __future__ import annotations

import os

from minikube_raw.linux import namespaces

from . import init, sandbox, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    class Pod(Protocol):
        """What children need of the worker that forks them."""

        request: dict[str, Any]

        @property
        def pause_pidns(self) -> int:
            """The PID namespace that the pod's containers share."""
            ...

        def fork(self, flags: int, cgroup: str, pid_namespace: int) -> tuple[int, int]:
            """Forks into namespaces and a cgroup; (pid, pidfd)."""
            ...


class Child:
    """A forked child; `status` hears from it and closes when its program runs."""

    def __init__(self, pod: Pod, cgroup: str, pid_namespace: int = -1, *, usual: dict[str, Any] | None = None) -> None:
        """`usual` is what it may prepare while it waits (spec.usual_spec), if it will have to."""
        self.cgroup = cgroup
        self.status, theirs = wire.pair()
        flags = namespaces.CLONE_NEWNS
        if pid_namespace < 0 and pod.request["pid"] == "CONTAINER":
            flags |= namespaces.CLONE_NEWPID
        elif pid_namespace < 0 and pod.request["pid"] == sandbox.POD:
            pid_namespace = pod.pause_pidns
        self.pid, self.pidfd = pod.fork(flags, cgroup, pid_namespace)
        if self.pid == 0:
            init.run_container(theirs, cgroup, usual, pod.request["mountPoint"])
        theirs.close()

    @classmethod
    def again(cls, cgroup: str, pid: int, pidfd: int, status: int) -> Child:
        """A child that an earlier worker forked and that waits still."""
        child = cls.__new__(cls)
        child.cgroup, child.pid, child.pidfd, child.status = cgroup, pid, pidfd, wire.adopt(status)
        return child

    def close(self) -> None:
        """Lets go of it; one that waits still ends."""
        os.close(self.pidfd)
        self.status.close()

    def tell(self, job: dict[str, Any], streams: Sequence[int], volumes: Sequence[int]) -> None:
        """Says which container it becomes; `streams` are empty for a terminal, -1 for /dev/null."""
        given = [fd for fd in streams if fd >= 0]
        placed = [given.index(fd) if fd >= 0 else -1 for fd in streams]
        wire.send(self.status, {**job, "streams": placed}, [*given, *volumes])
