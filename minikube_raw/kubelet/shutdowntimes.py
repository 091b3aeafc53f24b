"""When the last graceful shutdown of the node began and ended: in a file, for it is the kubelet of the next boot that is asked.

File and fields are the kubelet's (graceful_node_shutdown_state, pkg/kubelet/nodeshutdown/storage.go).
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from minikube_raw.client.clock import Clock, micro_timestamp, seconds_of
from minikube_raw.kubelet.measures import Measure
from minikube_raw.linux import durability

log = logging.getLogger(__name__)
STATE_FILE = "graceful_node_shutdown_state"


class _State(msgspec.Struct, rename="camel", omit_defaults=True):
    start_time: str = ""
    end_time: str = ""


class ShutdownTimes:
    """Of one node. A file that cannot be read or written hinders no shutdown."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file, self._clock = file, clock
        self._began, self._ended = self._read()

    def begin(self) -> None:
        """A shutdown begins now."""
        self._began, self._ended = self._clock.now(), 0.0
        self._write(_State(micro_timestamp(self._began)))

    def end(self) -> None:
        """The one that began has ended: the machine may go."""
        self._ended = self._clock.now()
        self._write(_State(micro_timestamp(self._began), micro_timestamp(self._ended)))

    def measures(self) -> list[Measure]:
        """Whole seconds since the epoch; 0 where there was none, or it has not ended."""
        return [
            Measure(
                f"kubelet_graceful_shutdown_{name}_time_seconds",
                "gauge",
                f"Last graceful shutdown {name} time since unix epoch in seconds",
                int(at),
            )
            for name, at in (("start", self._began), ("end", self._ended))
        ]

    def _read(self) -> tuple[float, float]:
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=_State)
            return seconds_of(state.start_time) or 0.0, seconds_of(state.end_time) or 0.0
        except FileNotFoundError:
            return 0.0, 0.0
        except (OSError, ValueError) as error:
            log.warning("when the node shut down last is not known: %s: %s", self._file, error)
            return 0.0, 0.0

    def _write(self, state: _State) -> None:
        try:
            durability.write_file(self._file, msgspec.json.encode(state), sync=True)
        except OSError as error:
            log.warning("when the node shuts down is not written down: %s", error)
