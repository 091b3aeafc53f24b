"""Packets between kubelet, launcher, keepers and the children they start: one JSON object per packet, descriptors beside it.

The sockets are SOCK_SEQPACKET and paths (never abstract: pods on the node's network could reach those), open to root only.
A body too big for a packet travels in a memfd. Every process of the node speaks this from its birth to its end, so fields
are only ever added, and VERSION tells an old keeper from a new one.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from minikube_raw.linux import unix_sockets
from minikube_raw.linux.unix_sockets import Socket, adopt, pair

from . import jsontext

__all__ = ["Closed", "Socket", "accept", "adopt", "close", "connect", "hang_up", "listen", "pair", "receive", "send"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeAlias

    Message: TypeAlias = dict[str, Any]

VERSION = 3  # since 2 a container's root file system may come as a mount, since 3 its processes from a checkpoint
MOST_DESCRIPTORS = 250  # SCM_MAX_FD is 253
_LARGEST_INLINE = 100_000  # below the kernel's default socket buffer of 212,992 bytes
_BODY_IN_MEMFD = b'{"body":"memfd"}'
_ANCILLARY = _socket.CMSG_SPACE(MOST_DESCRIPTORS * 4 + 4)


class Closed(ConnectionError):
    """The other side has closed the connection."""


def listen(path: str) -> Socket:
    """Binds a root-only socket at `path`, replacing what a dead process left there."""
    listener = unix_sockets.packets()
    before = os.umask(0o177)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        unix_sockets.bind(listener, path)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def connect(path: str) -> Socket:
    """Connects to the socket at `path`; raises ConnectionRefusedError or FileNotFoundError when nobody listens."""
    connection = unix_sockets.packets()
    try:
        unix_sockets.connect(connection, path)
    except OSError:
        connection.close()
        raise
    return connection


def accept(listener: Socket) -> Socket | None:
    """Accepts a connection of root's; anybody else's is closed and None returned."""
    connection = listener.accept()
    if connection.peer_uid() != 0:
        connection.close()
        return None
    return connection


def send(connection: Socket, message: Message, descriptors: Sequence[int] = (), *, wait: bool = True) -> None:
    """Sends one packet. Raises OSError when the peer is gone; BlockingIOError when it does not read and we do not wait for it."""
    if len(descriptors) > MOST_DESCRIPTORS:
        raise OSError(errno.E2BIG, f"{len(descriptors)} descriptors do not fit a packet of {MOST_DESCRIPTORS}")
    send_bytes(connection, jsontext.dumps(message).encode(), descriptors, wait=wait)


def send_bytes(connection: Socket, body: bytes, descriptors: Sequence[int] = (), *, wait: bool = True) -> None:
    """send() of what is no message, for a receiver that expects it; it must not be empty, which is how a connection ends."""
    memory = -1
    try:
        if len(body) > _LARGEST_INLINE:
            memory = _in_memory(body)
            body = _BODY_IN_MEMFD
        carried = [*descriptors, memory] if memory >= 0 else descriptors
        if wait and not carried:
            # write(2), because a child says what went wrong under the container's seccomp filter, and few refuse that.
            os.write(connection.fileno(), body)
            return
        packed = struct.pack(f"{len(carried)}i", *carried)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if carried else []
        connection.sendmsg([body], ancillary, 0 if wait else _socket.MSG_DONTWAIT)
    finally:
        close([memory])


def _in_memory(body: bytes) -> int:
    memory = os.memfd_create("packet", os.MFD_CLOEXEC)
    written = 0
    while written < len(body):
        written += os.write(memory, body[written:])
    return memory


def receive(connection: Socket) -> tuple[Message, list[int]]:
    """Receives one packet and the descriptors beside it (the caller owns them). Raises Closed at the end of the connection."""
    body, received = receive_bytes(connection)
    message: Message = jsontext.loads(body)
    return message, received


def receive_bytes(connection: Socket) -> tuple[bytes, list[int]]:
    """receive() of what send_bytes() sent."""
    try:
        body, ancillary, _flags, _ = connection.recvmsg(_LARGEST_INLINE + 1, _ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        raise Closed from None
    if not body:
        raise Closed
    received: list[int] = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            received += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    if body == _BODY_IN_MEMFD:
        memory = received.pop()
        body = os.pread(memory, os.fstat(memory).st_size, 0)
        os.close(memory)
    return body, received


def close(descriptors: Iterable[int]) -> None:
    """Closes descriptors; those that are -1 or closed already are fine."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass


def stream_pair() -> tuple[int, int]:
    """Makes two connected, non-blocking stream sockets as descriptors: a terminal's two directions in one."""
    ours, theirs = pair(stream=True)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours.detach(), theirs.detach()


def hang_up(descriptor: int) -> None:
    """Closes a pipe or a socket; a socket's peer sees the end even while copies of the descriptor are open."""
    try:
        with adopt(os.dup(descriptor)) as end:
            end.shutdown(unix_sockets.SHUT_RDWR)
    except OSError:
        pass  # a pipe, or the peer has gone
    os.close(descriptor)
