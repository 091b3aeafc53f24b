"""TCP connections to pods, and their failures in the words that Go's net package (and so every probe's Event) has for them."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl

_TEXTS = {errno.EHOSTUNREACH: "no route to host"}


class DialError(Exception):
    """No connection: the text is Go's."""


def host_port(host: str, port: int) -> str:
    """host:port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def dial(
    host: str, port: int, *, tls: ssl.SSLContext | None = None, limit: int = 1 << 16
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect. Raises DialError, ssl.SSLError; the caller sets the deadline."""
    try:
        return await asyncio.open_connection(
            host, port, ssl=tls, server_hostname=host if tls is not None else None, limit=limit
        )
    except ssl.SSLError:
        raise
    except OSError as error:
        raise DialError(f"dial tcp {host_port(host, port)}: {_text(error)}") from None


def _text(error: OSError) -> str:
    if error.errno is None or error.errno < 0:  # a name that cannot be resolved has no errno
        return str(error)
    return f"connect: {_TEXTS.get(error.errno, os.strerror(error.errno).lower())}"
