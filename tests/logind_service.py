"""A logind made by hand on a private bus: locks, PrepareForShutdown, InhibitDelayMaxSec; and the systemd that reloads it.

The bus is a real dbus-daemon; of org.freedesktop.login1(5) there is what a kubelet asks. Locks are pipes, as logind's are
FIFOs: a lock is released when nobody holds its writing end.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.io.blocking import DBusConnection, open_dbus_connection

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/>
    <allow send_type="signal"/><allow receive_type="signal"/><allow receive_type="method_call"/>
    <allow receive_type="method_return"/><allow receive_type="error"/>
  </policy>
</busconfig>
"""
MANAGER = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager")
NAMES = ("org.freedesktop.login1", "org.freedesktop.systemd1")


@contextmanager
def bus(directory: Path) -> Iterator[str]:
    """A bus of its own below a directory; its address."""
    config = directory / "bus.conf"
    config.write_text(CONFIG.format(socket=directory / "bus"))
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
    finally:
        daemon.terminate()
        daemon.wait()
        daemon.stdout.close()


class LogindService:
    """Answers on the event loop; `locks` are those that are held. `override` is the file that it reads when reloaded."""

    def __init__(self, address: str, override: Path) -> None:
        self.limit = 5
        self.heeds_override = True
        self.shutting_down = False
        self.reloads = 0
        self.inhibits: list[tuple[Any, ...]] = []
        self._pipes: list[int] = []
        self._override = override
        self._bus: DBusConnection = open_dbus_connection(address, enable_fds=True)
        for name in NAMES:
            self._bus.bus_proxy.RequestName(name)
        asyncio.get_running_loop().add_reader(self._bus.sock, self._readable)

    @property
    def locks(self) -> int:
        """How many locks are held."""
        held = []
        for pipe in self._pipes:
            readable, _, _ = select.select([pipe], [], [], 0)
            (held.append(pipe) if not readable else os.close(pipe))
        self._pipes = held
        return len(held)

    def prepare_for_shutdown(self, begins: bool) -> None:
        """Tell everybody that a shutdown begins, or was called off."""
        self.shutting_down = begins
        self._bus.send(new_signal(MANAGER, "PrepareForShutdown", "b", (begins,)))

    def close(self) -> None:
        """Leave the bus, as a logind that ends."""
        asyncio.get_running_loop().remove_reader(self._bus.sock)
        self._bus.close()
        for pipe in self._pipes:
            os.close(pipe)

    def _readable(self) -> None:
        with suppress(TimeoutError):
            while True:
                message = self._bus.receive(timeout=0)
                if message.header.message_type is MessageType.method_call:
                    self._answer(message)

    def _answer(self, message: Message) -> None:
        member, body = message.header.fields[HeaderFields.member], message.body
        if member == "Get":
            values = {
                "InhibitDelayMaxUSec": ("t", self.limit * 1_000_000),
                "PreparingForShutdown": ("b", self.shutting_down),
            }
            self._bus.send(new_method_return(message, "v", (values[body[1]],)))
        elif member == "Inhibit" and self.shutting_down:
            name, text = (
                "org.freedesktop.login1.OperationInProgress",
                "The operation inhibition has been requested for is already running",
            )
            self._bus.send(new_error(message, name, "s", (text,)))
        elif member == "Inhibit":
            self.inhibits.append(body)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self._pipes.append(reading)
            self._bus.send(new_method_return(message, "h", (writing,)))
            os.close(writing)
        elif member == "KillUnit":
            assert body == ("systemd-logind.service", "all", 1)
            self.reloads += 1
            if self.heeds_override and (found := re.search(r"InhibitDelayMaxSec=(\d+)", self._override.read_text())):
                self.limit = int(found[1])
            self._bus.send(new_method_return(message))


def impostor(address: str) -> None:
    """Broadcast what looks like logind's signal, as any user of a host can."""
    with open_dbus_connection(address) as connection:
        assert isinstance(connection.sock, socket.socket)
        connection.send(new_signal(MANAGER, "PrepareForShutdown", "b", (True,)))
        ping = new_method_call(
            DBusAddress("/", NAMES[0], "org.freedesktop.DBus.Properties"),
            "Get",
            "ss",
            (NAMES[0], "PreparingForShutdown"),
        )
        connection.send_and_get_reply(ping, timeout=10)
