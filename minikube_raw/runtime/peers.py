"""The kubelet's end of a connection to a keeper: requests with answers, and events, on an asyncio loop.

One task-free object per connection: the loop calls it when a packet is there. Answers arrive in any order.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from . import wire
from .cri import RuntimeServiceError

Message = dict[str, Any]
FIRST = 0  # the answer a keeper gives unasked: its sandbox is made


class Gone(RuntimeServiceError):
    """The process at the other end has died."""

    def __init__(self, who: str) -> None:
        super().__init__("RuntimeUnavailable", f"the {who} went away; it is being replaced")


class Peer:
    """A connection to one keeper. `on_event` gets (message, descriptors) and owns those; `on_close` is called once."""

    def __init__(
        self,
        connection: wire.Socket,
        on_event: Callable[[Message, list[int]], None],
        on_close: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._on_event, self._on_close = on_event, on_close
        self._numbers = itertools.count(FIRST + 1)
        self._waiting: dict[int, asyncio.Future[tuple[Message, list[int]]]] = {}
        self.closed = False
        connection.setblocking(False)
        self._loop.add_reader(connection.fileno(), self._readable)

    def first_answer(self) -> asyncio.Future[tuple[Message, list[int]]]:
        """Returns the future of what a new keeper says first."""
        return self._waiting.setdefault(FIRST, self._loop.create_future())

    async def request(
        self, message: Message, descriptors: Sequence[int] = (), *, timeout: float | None = None
    ) -> tuple[Message, list[int]]:
        """Sends one request and returns its answer with the descriptors beside it, which the caller owns.

        Raises Gone when the keeper dies first, RuntimeServiceError when it answers with an error.
        """
        if self.closed:
            raise Gone("keeper")
        number = next(self._numbers)
        future: asyncio.Future[tuple[Message, list[int]]] = self._loop.create_future()
        self._waiting[number] = future
        try:
            await self._send({"id": number, **message}, descriptors)
            async with asyncio.timeout(timeout):
                answer = await future
        finally:
            self._waiting.pop(number, None)
        return answer

    async def _send(self, message: Message, descriptors: Sequence[int]) -> None:
        while True:
            try:
                wire.send(self._connection, message, descriptors)
            except BlockingIOError:
                await self._writable()
            except OSError:
                self.close()
                raise Gone("keeper") from None
            else:
                return

    async def _writable(self) -> None:
        future = self._loop.create_future()
        self._loop.add_writer(self._connection.fileno(), future.set_result, None)
        try:
            await future
        finally:
            self._loop.remove_writer(self._connection.fileno())

    def _readable(self) -> None:
        try:
            message, descriptors = wire.receive(self._connection)
        except BlockingIOError:
            return
        except (wire.Closed, OSError):
            self.close()
            return
        future = self._waiting.get(message.get("id", -1))
        if future is None:
            self._on_event(message, descriptors)
        elif future.done():
            wire.close(descriptors)
        else:
            future.set_result((message, descriptors))

    def close(self) -> None:
        """Ends the connection; whoever waits for an answer gets Gone."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._connection.fileno())
        self._connection.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Gone("keeper"))
                future.exception()  # whoever was to wait for it may have been called off
        self._waiting.clear()
        self._on_close()


def refuse_errors(message: Message) -> Message:
    """Returns an answer, or raises the RuntimeServiceError it carries."""
    if "error" in message:
        raise RuntimeServiceError(message.get("reason", "RuntimeError"), message["error"])
    return message
