"""How a request reaches an API server: over HTTP, or in the same process with the same bytes and the same errors.

A transport carries bytes only; `client.rest` puts names and types on it. The in-process transport of the API server
implements this protocol structurally, so scheduler and controllers can run beside it or apart (api-notes point 10).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec


class Request(msgspec.Struct, frozen=True):
    """An API request, whatever carries it. `query` keeps repeated parameters (`command=a&command=b`) as tuples."""

    method: str
    path: str
    query: Mapping[str, tuple[str, ...]] = {}
    body: bytes = b""
    content_type: str = "application/json"
    accept: str = "application/json"
    user_agent: str = "minikube-raw"
    # For documents clients keep (discovery, OpenAPI): the ETag they have.
    if_none_match: str = ""


class Response(msgspec.Struct, frozen=True):
    """An answer with its whole body; errors are metav1.Status objects in the body."""

    code: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Transport(Protocol):
    """Carries requests to one API server as one user."""

    async def request(self, request: Request) -> Response:
        """Send and wait for the whole answer. Raises OSError when no server can be reached."""
        ...

    def watch(self, request: Request) -> AsyncIterator[bytes]:
        """Yield a watch's frames, one JSON WatchEvent each, until the server ends it.

        A refused watch raises api.status.StatusError, a broken one OSError.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
