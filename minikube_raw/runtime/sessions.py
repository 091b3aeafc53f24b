"""ExecSession as the kubelet's streaming servers use it: descriptors of a process or of a container's own streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from minikube_raw.linux import terminals

from . import wire


class Session:
    """See cri.ExecSession. `ended` resolves to the exit code."""

    def __init__(
        self,
        descriptors: Sequence[int],
        ended: asyncio.Future[int],
        *,
        tty: bool,
        stdin: bool,
        resize: Callable[[int, int], Awaitable[None]] | None = None,
        kill: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        left = list(descriptors)
        self._owned = list(descriptors)
        self._ended, self._tty, self._resize, self._kill = ended, tty, resize, kill
        self.stdin: int | None = left[0] if tty else left.pop(0) if stdin else None
        self.stdout: int | None = left[0] if tty or left else None
        self.stderr: int | None = left[1] if not tty and len(left) > 1 else None

    async def resize(self, width: int, height: int) -> None:
        """Sets the terminal's size in characters; does nothing without a terminal."""
        if self._resize is not None:
            await self._resize(width, height)
        elif self._tty and self.stdin is not None:
            terminals.set_size(self.stdin, width, height)

    async def kill(self) -> None:
        """Ends an exec'd process by SIGKILL; a container's own first process is left to StopContainer."""
        if self._kill is not None:
            await self._kill()

    def close_stdin(self) -> None:
        """Ends the process's input and leaves its output open; with a terminal there is no such half."""
        if self.stdin is not None and not self._tty:
            wire.close([self.stdin])
            self._owned.remove(self.stdin)
            self.stdin = None

    async def wait(self) -> int:
        """Returns the exit code (128 + signal when it was killed)."""
        return await asyncio.shield(self._ended)

    def close(self) -> None:
        """Closes the descriptors; twice is fine."""
        wire.close(self._owned)
        self._owned.clear()
        self.stdin = self.stdout = self.stderr = None
