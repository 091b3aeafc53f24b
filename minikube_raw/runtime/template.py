"""The process that keepers are forked from: a fork of the launcher that holds no pod's descriptors.

fork(2) copies every descriptor of its caller, and the first thing a keeper does is to close those that are not its own. The
launcher holds up to ten for each pod; forked by it, the 500th keeper of a node copied and closed some four thousand. A template
has four whatever the launcher holds, so a keeper's birth costs the same on a full node as on an empty one.

It ends with its launcher. Keepers it forked live on when it dies, as the launcher's children, and the launcher makes another one.
"""

from __future__ import annotations

import os

from minikube_raw.linux import fds, proctitle, signals

from . import keeper, wire
from .worker import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .wire import Socket

    Request = dict[str, Any]

TITLE = "keeper template"


class Template:
    """The launcher's end of a template."""

    def __init__(self, launcher: str) -> None:
        """Forks one; `launcher` is the socket at which keepers find their launcher. Raises OSError."""
        self._orders, theirs = wire.pair()
        try:
            pid = os.fork()
        except OSError:
            wire.close([self._orders.detach(), theirs.detach()])
            raise
        if pid == 0:
            _run(theirs, launcher)
        theirs.close()

    def fileno(self) -> int:
        """A descriptor that becomes readable when the template has died."""
        return self._orders.fileno()

    def close(self) -> None:
        """Lets it end."""
        self._orders.close()

    def fork_keeper(self, request: Request, connection: int) -> None:
        """Has a keeper forked that answers on `connection` (which stays the caller's). Raises OSError when the template has died."""
        wire.send(self._orders, {"sandbox": request}, [connection])

    def fork_spare(self, orders: int) -> None:
        """Has a keeper forked ahead of time, that waits on `orders` (which stays the caller's). Raises OSError likewise."""
        wire.send(self._orders, {}, [orders])


def _run(orders: Socket, launcher: str) -> NoReturn:
    """Forks keepers until the launcher has gone. Never returns."""
    try:
        fds.close_all_but([0, 1, 2, orders.fileno()])
        signals.stop_waking()
        signals.ignore(signals.SIGCHLD)  # nobody asks how a keeper ended
        proctitle.set_title(TITLE)
        while True:
            message, received = wire.receive(orders)
            _fork(message, received[0], launcher)
            wire.close(received)
    except wire.Closed:
        pass
    except BaseException as error:  # a fork must not unwind into the launcher's loop
        report("template", error)
    finally:
        os._exit(0)


def _fork(message: Request, given: int, launcher: str) -> None:
    """Forks a keeper. Not by clone_child(): what it calls by ctypes would make 270 kB of each keeper its own."""
    try:
        pid = os.fork()
    except OSError as error:
        report("template: no keeper", error)
        if "sandbox" in message:
            with wire.adopt(os.dup(given)) as asked:
                wire.send(asked, {"id": 0, "error": f"cannot fork a keeper: {error.strerror}"}, wait=False)
        return
    if pid == 0:
        signals.stop_waking()  # which also has it wait for its own children
        if "sandbox" in message:
            keeper.main(message["sandbox"], wire.adopt(given), launcher)
        keeper.main_spare(wire.adopt(given), launcher)
