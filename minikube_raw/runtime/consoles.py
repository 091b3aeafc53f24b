"""The socket through which an OCI runtime hands over a terminal's master (`--console-socket`)."""

from __future__ import annotations

import _socket
import errno
import os
import struct

from minikube_raw.linux import unix_sockets

from . import wire

_SECONDS = 5.0
_ANCILLARY = _socket.CMSG_SPACE(16)


class Console:
    """`with Console(…)`: listens for a terminal, if one is wanted, while the runtime runs.

    The runtime finds it by its name in the directory that it is run in: a path may be longer than a socket's address.
    """

    def __init__(self, directory: str, name: str, *, wanted: bool) -> None:
        self._path = f"{directory}/{name}"
        self.arguments = ["--console-socket", name] if wanted else []
        self._listener: unix_sockets.Socket | None = None

    def __enter__(self) -> Console:
        if self.arguments:
            if os.path.lexists(self._path):  # of a start that a crash interrupted
                os.unlink(self._path)
            self._listener = unix_sockets.streams()
            unix_sockets.bind(self._listener, self._path)
            self._listener.listen(1)
            self._listener.settimeout(_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
            os.unlink(self._path)

    def receive(self) -> int:
        """Returns the master, -1 if none is wanted. The runtime has ended, so it waits in the socket. Raises OSError."""
        if self._listener is None:
            return -1
        with self._listener.accept() as connection:
            connection.settimeout(_SECONDS)
            _name, ancillary, _flags, _ = connection.recvmsg(4096, _ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
        received: list[int] = [
            fd for _level, _kind, data in ancillary for fd in struct.unpack(f"{len(data) // 4}i", data)
        ]
        if not received:
            raise OSError(errno.ENOTTY, "the runtime gave no terminal", self._path)
        wire.close(received[1:])
        return received[0]
