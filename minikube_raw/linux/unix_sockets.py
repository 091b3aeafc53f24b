"""Unix sockets for processes that must stay small: the C core of the standard library's socket module, and no more.

The module itself brings enum, selectors and half a megabyte of objects; each call through its Python layer dirties pages
that a fork of ours then no longer shares: 280 kB for one socketpair() in a keeper, 50 kB this way.
"""

from __future__ import annotations

import _socket

from .socket_paths import short_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

SHUT_RDWR = _socket.SHUT_RDWR


class Socket(_socket.socket):
    """A socket that `with` closes; everything else is the C core's."""

    __slots__ = ()

    def __enter__(self) -> Socket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def accept(self) -> Socket:
        """Accepts a connection; like every descriptor of ours it is closed on exec."""
        descriptor, _address = self._accept()  # type: ignore[attr-defined]  # typeshed does not list it
        return adopt(descriptor)

    def peer_uid(self) -> int:
        """The user at the other end (SO_PEERCRED, unix(7))."""
        credentials = self.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[4:8], "little")


def packets() -> Socket:
    """Makes an unconnected SOCK_SEQPACKET socket."""
    return Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def streams() -> Socket:
    """Makes an unconnected SOCK_STREAM socket."""
    return Socket(_socket.AF_UNIX, _socket.SOCK_STREAM)


def pair(*, stream: bool = False) -> tuple[Socket, Socket]:
    """Makes two connected sockets, for packets or for a stream of bytes."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM if stream else _socket.SOCK_SEQPACKET, 0)
    return adopt(ours.detach()), adopt(theirs.detach())


def adopt(descriptor: int) -> Socket:
    """Makes a socket of a descriptor, which it owns from now on."""
    return Socket(fileno=descriptor)


def bind(connection: Socket, path: str) -> None:
    """bind(2) to a path of any length."""
    with short_name(path) as name:
        connection.bind(name)


def connect(connection: Socket, path: str) -> None:
    """connect(2) to a path of any length."""
    with short_name(path) as name:
        connection.connect(name)
