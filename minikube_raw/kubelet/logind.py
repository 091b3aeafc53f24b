"""systemd-logind as a kubelet asks it: a lock that delays a shutdown, and word of one that begins or was called off.

Source: org.freedesktop.login1(5), logind.conf(5), systemd's "Inhibitor Locks"; words as pkg/kubelet/nodeshutdown/systemd has
them. Loads the D-Bus library: imported by nodes with a grace period for shutdowns only.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from jeepney import DBusAddress

from minikube_raw.client.clock import Clock, sleep
from minikube_raw.kubelet.nodeshutdown import Refused
from minikube_raw.linux import dbus, durability

OVERRIDE = Path("/etc/systemd/logind.conf.d/99-kubelet.conf")
_LOGIND = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager")
_SYSTEMD = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_PREPARE = "PrepareForShutdown"
_LOCK = ("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay")
_RELOAD = ("systemd-logind.service", "all", 1)  # SIGHUP
_RELOAD_LOOKS, _RELOAD_PAUSE = 20, 0.1


class Logind:
    """logind over a connection to the system bus: see nodeshutdown.Logind."""

    def __init__(self, bus: dbus.Connection, clock: Clock, override: Path = OVERRIDE) -> None:
        self._bus, self._clock, self._override = bus, clock, override

    async def delay_limit(self) -> float:
        """How many seconds a lock delays a shutdown at most (InhibitDelayMaxSec)."""
        return float(await self._bus.get(_LOGIND, "InhibitDelayMaxUSec")) / 1e6

    async def raise_delay_limit(self, seconds: float) -> str:
        """Configure logind anew so that a lock may delay that long, and wait for it; returns the file that says so.

        A file that says so already is left alone, so whatever keeps logind from heeding it is not tried again.
        """
        text = f"# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={seconds:.0f}\n".encode()
        if not self._override.is_file() or self._override.read_bytes() != text:
            self._override.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            durability.write_file(self._override, text, sync=True, mode=0o644)
            await self._bus.call(_SYSTEMD, "KillUnit", "ssi", *_RELOAD)
            for _ in range(_RELOAD_LOOKS):  # it reads its files when it gets to the signal
                if await self.delay_limit() >= seconds:
                    break
                await sleep(self._clock, _RELOAD_PAUSE)
        return str(self._override)

    async def is_shutting_down(self) -> bool:
        """Whether a shutdown is being delayed at this moment: logind gives no more locks then."""
        return bool(await self._bus.get(_LOGIND, "PreparingForShutdown"))

    async def inhibit(self) -> Callable[[], None]:
        """Take a lock; returns what releases it."""
        (descriptor,) = await self._bus.call(_LOGIND, "Inhibit", "ssss", *_LOCK)
        lock = os.fdopen(descriptor.to_raw_fd(), "rb", buffering=0)
        return lock.close

    async def watch(self) -> AsyncIterator[bool]:
        """From now on: True when a shutdown begins, False when it was called off."""
        await self._bus.subscribe(_LOGIND, _PREPARE)
        return self._shutdowns()

    async def _shutdowns(self) -> AsyncIterator[bool]:
        async for (begins,) in self._bus.signals(_PREPARE):
            yield begins


@asynccontextmanager
async def connect(clock: Clock, bus: str = dbus.SYSTEM, override: Path = OVERRIDE) -> AsyncIterator[Logind]:
    """Logind on a bus. Raises OSError where there is no bus, and Refused for what it answers with an error."""
    try:
        async with dbus.connect(bus) as connection:
            yield Logind(connection, clock, override)
    except dbus.DBusError as error:
        raise Refused(str(error)) from error
