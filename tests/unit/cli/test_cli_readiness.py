"""What `up` waits for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from minikube_raw.cli import readiness
from minikube_raw.machine.layout import ClusterRecord


class Nobody:
    """A server that is not there."""

    async def list(self, resource: object) -> Any:
        raise ConnectionRefusedError

    async def close(self) -> None:
        pass


async def test_a_master_that_has_ended_is_not_waited_for() -> None:
    record = ClusterRecord("one", "", "", "", "", 0, "", ())

    with pytest.raises(readiness.NotReady, match="the master of one has ended"):
        await readiness.wait_for_nodes(cast(Any, Nobody()), record, (), 60, lambda: False)
