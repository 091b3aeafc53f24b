"""One connection to a message bus, on the event loop: calls, signals, and the descriptors that answers carry.

jeepney knows the protocol (D-Bus specification 0.43: authentication, marshalling); what is read and written when is decided
here, since its own connection for asyncio passes no descriptors. Import this module where it is used: most nodes never ask a bus.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, MatchRule, Message, MessageType, Parser
from jeepney.auth import AuthenticationError
from jeepney.bus import get_bus
from jeepney.bus_messages import message_bus
from jeepney.fds import FileDescriptor, fds_buf_size
from jeepney.io.blocking import prep_socket
from jeepney.wrappers import Properties, new_method_call, unwrap_msg

SYSTEM = "SYSTEM"  # DBUS_SYSTEM_BUS_ADDRESS, else the host's
_BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
CALL_SECONDS = 25.0  # as libdbus waits


class DBusError(Exception):
    """A call was answered with an error; `name` is org.freedesktop.…"""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} ({name})")
        self.name = name


class Connection:
    """Made by `connect`. A bus that goes away ends what waits for it with ConnectionResetError."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._parser = Parser()
        self._serials = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._signals: asyncio.Queue[Message | None] = asyncio.Queue()
        self._lost = False
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._readable)

    async def call(self, to: DBusAddress, member: str, signature: str = "", *arguments: Any) -> tuple[Any, ...]:
        """Call a method; its results, descriptors as jeepney's FileDescriptor. Raises DBusError, TimeoutError, OSError."""
        return await self._ask(new_method_call(to, member, signature or None, arguments))

    async def get(self, of: DBusAddress, name: str) -> Any:
        """A property's value. Raises DBusError, TimeoutError, OSError."""
        ((_, value),) = await self._ask(Properties(of).get(name))
        return value

    async def subscribe(self, to: DBusAddress, member: str) -> None:
        """Have a signal of an object's interface sent here. Raises DBusError, TimeoutError, OSError.

        The bus checks who sends it: anybody may broadcast a signal that looks like another's.
        """
        rule = MatchRule(type="signal", sender=to.bus_name, interface=to.interface, member=member, path=to.object_path)
        await self._ask(message_bus.AddMatch(rule.serialise()))

    async def signals(self, member: str) -> AsyncIterator[tuple[Any, ...]]:
        """What signals of a name carry, for ever. Raises ConnectionResetError when the bus goes away."""
        while (message := await self._signals.get()) is not None:
            if message.header.fields.get(HeaderFields.member) == member:
                yield message.body
        raise _reset()

    def close(self) -> None:
        """Leave the bus."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._lose()
        self._socket.close()

    async def _ask(self, message: Message) -> tuple[Any, ...]:
        if self._lost:
            raise _reset()
        serial, loop = next(self._serials), asyncio.get_running_loop()
        answer = self._replies[serial] = loop.create_future()
        try:
            await loop.sock_sendall(self._socket, message.serialise(serial))
            async with asyncio.timeout(CALL_SECONDS):
                results: tuple[Any, ...] = unwrap_msg(await answer)
                return results
        except DBusErrorResponse as error:
            raise DBusError(error.name, str(error.data[0]) if error.data else "") from error
        finally:
            del self._replies[serial]

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(self._parser.bytes_desired(), fds_buf_size())
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._lose()
            return
        self._parser.add_data(data, fds=FileDescriptor.from_ancdata(ancillary))
        while (message := self._parser.get_next_message()) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        answer = self._replies.get(message.header.fields.get(HeaderFields.reply_serial, 0))
        if answer is not None and not answer.done():
            answer.set_result(message)
        elif message.header.message_type is MessageType.signal:
            self._signals.put_nowait(message)

    def _lose(self) -> None:
        self._lost = True
        self._signals.put_nowait(None)
        for answer in self._replies.values():
            if not answer.done():
                answer.set_exception(_reset())


@asynccontextmanager
async def connect(bus: str = SYSTEM) -> AsyncIterator[Connection]:
    """A connection to a bus, by its address or SYSTEM. Raises OSError where there is none that lets us in."""
    try:
        connection = Connection(await asyncio.to_thread(prep_socket, get_bus(bus), True))
    except (RuntimeError, AuthenticationError) as error:  # an address of another kind than unix; refused
        raise ConnectionError(str(error)) from error
    try:
        await connection.call(_BUS, "Hello")
        yield connection
    finally:
        connection.close()


def _reset() -> ConnectionResetError:
    return ConnectionResetError("the message bus has gone away")
