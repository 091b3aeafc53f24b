"""PortForward: connections to a sandbox's loopback, made from inside its network namespace.

A socket belongs to the namespace it was made in, wherever it is used: a thread that joins the namespace makes one and ends;
connecting and copying happen on the event loop. IPv4 first, then IPv6, in containerd's order and words.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress

from minikube_raw.linux import namespaces

from .cri import RuntimeServiceError

_LOOPBACK = ((socket.AF_INET, "127.0.0.1", "tcp4 127.0.0.1"), (socket.AF_INET6, "::1", "tcp6 [::1]"))
_REASON = "PortForwardError"


async def dial(sandbox_id: str, netns: str, port: int) -> socket.socket:
    """Connects to localhost:port inside `netns` ("" is the node's own); the socket is non-blocking.

    Raises RuntimeServiceError.
    """
    failures: list[str] = []
    for family, address, shown in _LOOPBACK:
        try:
            made = await asyncio.to_thread(_socket_in, netns, family)
        except FileNotFoundError:
            raise RuntimeServiceError(_REASON, f'network namespace for sandbox "{sandbox_id}" is closed') from None
        except OSError as error:
            failures.append(f"dial {shown}:{port}: {_text(error)}")
            continue
        try:
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        except OSError as error:
            made.close()
            failures.append(f"dial {shown}:{port}: connect: {_text(error)}")
        except BaseException:  # also when it is called off: the socket is nobody's yet
            made.close()
            raise
        else:
            return made
    inside = f'inside namespace "{sandbox_id}", IPv4: {failures[0]} IPv6 {failures[1]} '
    text = f'failed to execute portforward in network namespace "{netns or "host"}": failed to connect to localhost:{port} {inside}'
    raise RuntimeServiceError(_REASON, text)


def _socket_in(netns: str, family: socket.AddressFamily) -> socket.socket:
    """Makes a socket in the namespace that is pinned at `netns`."""

    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with suppress(OSError):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    if not netns:
        return make()
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return namespaces.in_namespace(fd, make)
    finally:
        os.close(fd)


def _text(error: OSError) -> str:
    """The error as Go words it."""
    return os.strerror(error.errno or errno.EIO).lower()
