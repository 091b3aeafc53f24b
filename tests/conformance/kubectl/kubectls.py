"""kubectl as a test calls it, and where the two versions are."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import NamedTuple

OLD = Path(__file__).parents[3] / ".cache/kubernetes-client/usr/bin/kubectl"
NEW = shutil.which("kubectl") or "/usr/bin/kubectl"


class Result(NamedTuple):
    """What a kubectl said."""

    code: int
    out: str
    err: str


class Kubectl:
    """One kubectl with a home of its own, in one namespace."""

    def __init__(self, binary: str, kubeconfig: Path, home: Path) -> None:
        self._binary = binary
        self._environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), "HOME": str(home)}
        self.is_old = binary == str(OLD)

    async def start(self, *args: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self._binary,
            *args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment | environment,
        )

    async def run(self, *args: str, stdin: str = "", **environment: str) -> Result:
        process = await self.start(*args, **environment)
        async with asyncio.timeout(30):
            out, err = await process.communicate(stdin.encode())
        return Result(process.returncode or 0, out.decode(), err.decode())

    async def __call__(self, *args: str, stdin: str = "", **environment: str) -> str:
        """Return what it prints; it must succeed."""
        result = await self.run(*args, stdin=stdin, **environment)
        assert result.code == 0, (args, result)
        return result.out

    async def fails(self, *args: str, stdin: str = "") -> str:
        """Return what it complains about; it must fail."""
        result = await self.run(*args, stdin=stdin)
        assert result.code != 0, (args, result)
        return result.err
