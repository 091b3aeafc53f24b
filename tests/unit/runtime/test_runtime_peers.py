from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from minikube_raw.runtime import wire
from minikube_raw.runtime.peers import Gone, Peer


async def test_a_first_answer_that_nobody_waits_for_any_more_is_no_error_of_the_loop() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    ours, theirs = wire.pair()
    peer = Peer(ours, lambda *_: None, lambda: None)
    peer.first_answer()
    theirs.close()
    peer.close()
    gc.collect()
    assert complaints == []


async def test_whoever_waits_for_the_first_answer_hears_that_the_keeper_has_gone() -> None:
    ours, theirs = wire.pair()
    peer = Peer(ours, lambda *_: None, lambda: None)
    answered = peer.first_answer()
    theirs.close()
    with pytest.raises(Gone):
        await answered
