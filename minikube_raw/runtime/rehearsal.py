"""A keeper's life, played in the launcher before it forks the first one.

Python writes while it runs: into its table of methods, into code that it makes ready for the types it has met, into objects
that it counts. Whatever a keeper does for the first time makes pages its own that all keepers could share. So the launcher has
done it all before: a sandbox is taken over, a container writes a line and ends, a kubelet asks and says good-bye.
"""

from __future__ import annotations

import gc
import os

from minikube_raw.linux import fds, signals

from . import handover, wire
from .keeper import Keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .wire import Socket

    Request = dict[str, Any]

ROUNDS = 12  # after eight calls Python makes a function's code ready for the types it meets
_LONGEST_SECONDS = 5.0
_FIFOS = ("stdout", "stdout.staging", "stderr", "stderr.staging")


def rehearse(directory: str) -> None:
    """Plays it, with files in a directory of its own; leaves no process and, but 0, 1 and 2, no descriptor behind."""
    os.makedirs(directory, 0o700, exist_ok=True)
    for _ in range(ROUNDS):
        _play(directory)
        gc.collect()  # closes what the keeper had
        fds.close_all_but([0, 1, 2])
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
    os.rmdir(directory)


def _play(directory: str) -> None:
    client, connection = wire.pair()
    launcher, _launcher_end = wire.pair()
    control, worker = wire.pair()
    held = {f"held c/{name}": _fifo(f"{directory}/{name}") for name in _FIFOS}
    kubelet = _fork(lambda: _be_kubelet(client))
    container = _fork(lambda: _be_container(held["held c/stdout"]))
    known: Request = {"id": "c", "cgroup": "", "pid": "CONTAINER", "process": container, "startedAt": 1, "tty": False}
    known |= {"runDir": directory, "logPath": f"{directory}/log", "exitPath": f"{directory}/exit"}
    known |= {"stdin": False, "oomFile": "/proc/self/status"}
    given = {
        "connection": connection.fileno(),
        "listener": wire.listen(f"{directory}/socket").detach(),
        "launcher": launcher.fileno(),
        "held c/process": os.pidfd_open(container),
        **held,
    }
    state: Request = {"sandbox": {"id": "s"}, "containers": [], "spare": None, "unreaped": []}
    state["started"] = {"container": known, "answer": {}}
    first = _fork(lambda: handover.give(worker, state, given))
    worker.close()
    client.close()
    keeper = Keeper("")
    keeper.loop.call_later(_LONGEST_SECONDS, keeper.loop.stop)
    keeper.serve(*handover.take(control), control, first)
    os.kill(kubelet, signals.SIGKILL)
    os.waitpid(kubelet, 0)


def _fifo(path: str) -> int:
    if not os.path.lexists(path):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _fork(play: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            play()
        finally:
            os._exit(0)
    return pid


def _be_container(stdout: int) -> None:
    os.write(stdout, b"a line\nand another\n")


def _be_kubelet(connection: Socket) -> None:
    while wire.receive(connection)[0].get("event") != "exited":
        pass
    for number, operation in enumerate(("hello", "forget", "quit")):
        wire.send(connection, {"op": operation, "container": "c", "id": number})
        wire.receive(connection)
