from __future__ import annotations

import socket
from pathlib import Path

import pytest

from minikube_raw.linux.socket_paths import short_name


def test_a_socket_under_a_path_longer_than_sun_path_can_be_bound_and_reached(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "s.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(OSError, match="too long"):
            server.bind(str(path))
        with short_name(str(path)) as name:
            server.bind(name)
        server.listen()
        with short_name(str(path)) as name:
            client.connect(name)
    assert path.is_socket()
