"""Packets between kubelet, launcher, keepers and the children they start: one JSON object per packet, descriptors beside it.

The sockets are SOCK_SEQPACKET and paths (never abstract: pods on the node's network could reach those), open to root only.
A body too big for a packet travels in a memfd. Every process of the node speaks this from its birth to its end, so fields
are only ever added, and VERSION tells an old keeper from a new one.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from array import array
from contextlib import suppress

from minikube_raw.linux.socket_paths import short_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeAlias

    Message: TypeAlias = dict[str, Any]

VERSION = 1
MOST_DESCRIPTORS = 250  # SCM_MAX_FD is 253
_LARGEST_INLINE = 100_000  # below the kernel's default socket buffer of 212,992 bytes
_BODY_IN_MEMFD = b'{"body":"memfd"}'
_ANCILLARY = socket.CMSG_SPACE(MOST_DESCRIPTORS * 4 + 4)


class Closed(ConnectionError):
    """The other side has closed the connection."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Makes two connected sockets, as a process hands one of them to a child or to the launcher."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def listen(path: str) -> socket.socket:
    """Binds a root-only socket at `path`, replacing what a dead process left there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        with short_name(path) as name:
            listener.bind(name)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def connect(path: str) -> socket.socket:
    """Connects to the socket at `path`; raises ConnectionRefusedError or FileNotFoundError when nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with short_name(path) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        raise
    return connection


def accept(listener: socket.socket) -> socket.socket | None:
    """Accepts a connection of root's; anybody else's is closed and None returned."""
    connection, _ = listener.accept()
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if struct.unpack("3i", credentials)[1] != 0:
        connection.close()
        return None
    return connection


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Sends one packet. Raises BlockingIOError when a non-blocking peer does not read, OSError when it is gone."""
    if len(descriptors) > MOST_DESCRIPTORS:
        raise OSError(errno.E2BIG, f"{len(descriptors)} descriptors do not fit a packet of {MOST_DESCRIPTORS}")
    body = text(message).encode()
    memory = -1
    try:
        if len(body) > _LARGEST_INLINE:
            memory = _in_memory(body)
            body = _BODY_IN_MEMFD
        carried = array("i", [*descriptors, memory] if memory >= 0 else descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, carried)] if carried else []
        connection.sendmsg([body], ancillary)
    finally:
        close([memory])


def _in_memory(body: bytes) -> int:
    memory = os.memfd_create("packet", os.MFD_CLOEXEC)
    written = 0
    while written < len(body):
        written += os.write(memory, body[written:])
    return memory


def receive(connection: socket.socket) -> tuple[Message, list[int]]:
    """Receives one packet and the descriptors beside it (the caller owns them). Raises Closed at the end of the connection."""
    try:
        body, ancillary, _flags, _ = connection.recvmsg(_LARGEST_INLINE + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        raise Closed from None
    if not body:
        raise Closed
    descriptors = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % 4])
    received = list(descriptors)
    if body == _BODY_IN_MEMFD:
        memory = received.pop()
        body = os.pread(memory, os.fstat(memory).st_size, 0)
        os.close(memory)
    message: Message = json.loads(body)
    return message, received


def text(value: object) -> str:
    """Returns a value as JSON text, which travels as one string that nobody on its way takes apart (a child's steps)."""
    return json.dumps(value, separators=(",", ":"))


def close(descriptors: Iterable[int]) -> None:
    """Closes descriptors; those that are -1 or closed already are fine."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def stream_pair() -> tuple[int, int]:
    """Makes two connected, non-blocking stream sockets as descriptors: a terminal's two directions in one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours.detach(), theirs.detach()


def hang_up(descriptor: int) -> None:
    """Closes a pipe or a socket; a socket's peer sees the end even while copies of the descriptor are open."""
    try:
        end = socket.socket(fileno=os.dup(descriptor))
        end.shutdown(socket.SHUT_RDWR)
        end.close()
    except OSError:
        pass  # a pipe, or the peer has gone
    os.close(descriptor)


def adopt(descriptor: int) -> socket.socket:
    """Makes a socket of a received descriptor, which it owns from now on."""
    return socket.socket(fileno=descriptor)
