"""The keeper that is made ahead of time: it has the namespaces of the next pod, whose network can be attached at once.

The kubelet asks the launcher for one, holds its orders and its network namespace, and tells it itself which pod it keeps. It ends
when the kubelet lets go of its orders.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from . import wire

PAUSE_SECONDS = 0.03  # the pod that took the last one starts meanwhile
RETRY_SECONDS = 1.0  # after one that could not be made, or has died: the launcher may be dead, and be started again


class Spare(NamedTuple):
    """A keeper that waits for orders, and its network namespace; whoever takes it owns both descriptors."""

    orders: wire.Socket
    netns: int


class Spares:
    """One spare keeper, made anew after each that was taken or lost, from the first want() to close()."""

    def __init__(self, launcher: str) -> None:
        self._launcher = launcher
        self._spare: Spare | None = None
        self._awaited: wire.Socket | None = None  # the launcher's connection, then the orders of one that is not ready
        self._timer: asyncio.TimerHandle | None = None

    def want(self, seconds: float = 0.0) -> None:
        """Has one made in so many seconds, unless there is one or soon will be."""
        if self._spare is None and self._awaited is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._ask)

    def take(self) -> Spare | None:
        """Returns the spare keeper, None when there is none at the moment; another will be made."""
        spare, self._spare = self._spare, None
        if spare is not None:
            asyncio.get_running_loop().remove_reader(spare.orders.fileno())
        self.want(PAUSE_SECONDS)
        return spare

    def close(self) -> None:
        """Lets go of it, so that it ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._awaited is not None:
            _unwatch(self._awaited)
            self._awaited = None
        if self._spare is not None:
            self._discard()

    def _ask(self) -> None:
        """Asks the launcher, who answers with the orders of a keeper, which tells its network namespace when it is ready."""
        self._timer = None
        try:
            launcher = wire.connect(self._launcher)
        except OSError:
            self.want(RETRY_SECONDS)
            return
        with suppress(OSError):  # that it has just died is heard as any other end of the connection
            wire.send(launcher, {"op": "spare"})
        self._await(launcher, lambda orders: self._await(wire.adopt(orders), self._ready, keep=True))

    def _await(self, connection: wire.Socket, take: Callable[..., None], *, keep: bool = False) -> None:
        """Has `take` called with the descriptor that comes over a connection, and with the connection itself if that is kept."""

        def hear() -> None:
            self._awaited = None
            try:
                _, received = wire.receive(connection)
            except OSError:
                received = []
            if not received or not keep:
                _unwatch(connection)
            if received:
                take(received[0], *([connection] if keep else []))
            else:
                self.want(RETRY_SECONDS)

        self._awaited = connection
        asyncio.get_running_loop().add_reader(connection.fileno(), hear)

    def _ready(self, netns: int, orders: wire.Socket) -> None:
        self._spare = Spare(orders, netns)
        asyncio.get_running_loop().add_reader(orders.fileno(), self._lost)  # it says nothing more, but may end

    def _lost(self) -> None:
        self._discard()
        self.want(RETRY_SECONDS)

    def _discard(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            _unwatch(spare.orders)
            os.close(spare.netns)


def _unwatch(connection: wire.Socket) -> None:
    asyncio.get_running_loop().remove_reader(connection.fileno())
    connection.close()
