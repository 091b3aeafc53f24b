"""Sends pod statuses to the API server: one request at a time per pod, always the newest, never in a worker.

They go at once, but for the first of a pod that is starting: most pods run before anybody could have read it. While a
request of a pod is under way only the latest status waits behind it; a server that is away is retried until it answers or
the status is superseded. A pod that is gone for good is deleted here too, after its last status.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, SystemClock, sleep
from minikube_raw.client.resources import PODS
from minikube_raw.client.rest import Client, PatchType

log = logging.getLogger(__name__)
Json = dict[str, Any]
_RETRY_FIRST, _RETRY_MAX = 0.1, 5.0
_STARTING_SECONDS = 0.25
_PASSING = ("PodResizePending", "PodResizeInProgress")  # conditions of ours that are there for a while only
_MERGED_BY_IP = ("hostIPs", "podIPs")


def status_patch(pod: Pod, old: Json, new: Json) -> Json:
    """A strategic merge patch from the status sent last to the new one, with the uid as precondition.

    Conditions merge by type, so those of others survive, and ours that are over are taken away by name; addresses are replaced;
    what is no longer there is null.
    """
    status: Json = {key: value for key, value in new.items() if value != old.get(key)}
    status |= {key: None for key in old if key not in new}
    if status.get("conditions"):  # None takes them all away
        status["$setElementOrder/conditions"] = [{"type": each["type"]} for each in new["conditions"]]
        before = {each["type"]: each for each in old.get("conditions", ())}
        status["conditions"] = [_condition_patch(before.get(each["type"], {}), each) for each in new["conditions"]]
        over = [kind for kind in _PASSING if kind in before and all(each["type"] != kind for each in new["conditions"])]
        status["conditions"] += [{"$patch": "delete", "type": kind} for kind in over]
    for key in _MERGED_BY_IP:
        if key in status and old.get(key):
            status[key] = [*status[key], {"$patch": "replace"}]
    return {"metadata": {"uid": pod.metadata.uid}, "status": status}


def _condition_patch(old: Json, new: Json) -> Json:
    """A condition is merged key by key: a reason or message that is no longer there has to be taken away by name."""
    return new | {key: None for key in old if key not in new}


class _Outbox:
    """What is to be sent for one pod, and what the server has."""

    def __init__(self, pod: Pod, sent: Json) -> None:
        self.pod = pod
        self.sent = sent
        self.wanted: Json | None = None
        self.delete = False
        self.changed = asyncio.Event()

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send."""
        return self.delete or (self.wanted is not None and self.wanted != self.sent)


class StatusManager:
    """One sender per pod. `set` and `delete` return at once."""

    def __init__(self, client: Client, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._outboxes: dict[str, _Outbox] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._some_sent = asyncio.Event()

    def set(self, pod: Pod, status: Json, server_has: Json) -> None:
        """Send a status; `server_has` is what the API server had when the pod was first seen."""
        outbox = self._outbox(pod, server_has)
        outbox.wanted = status
        outbox.changed.set()

    def delete(self, pod: Pod) -> None:
        """After the newest status, delete the object with a grace period of 0, if it still is this pod."""
        outbox = self._outbox(pod, {})
        outbox.delete = True
        outbox.changed.set()

    def forget(self, uid: str) -> None:
        """The pod is gone from the API server; nothing needs to be sent any more."""
        self._outboxes.pop(uid, None)
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()

    async def sent(self) -> None:
        """Wait until the API server has been told everything that is to tell."""
        while any(not self._tasks[uid].done() and each.is_waiting for uid, each in self._outboxes.items()):
            self._some_sent.clear()
            await self._some_sent.wait()

    async def close(self) -> None:
        """Stop sending."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _outbox(self, pod: Pod, server_has: Json) -> _Outbox:
        uid = pod.metadata.uid
        outbox = self._outboxes.get(uid)
        if outbox is None:
            outbox = self._outboxes[uid] = _Outbox(pod, server_has)
            task = asyncio.create_task(self._send_all(outbox), name=f"status of {pod.metadata.name}")
            task.add_done_callback(lambda task: self._some_sent.set())
            self._tasks[uid] = task
        return outbox

    async def _send_all(self, outbox: _Outbox) -> None:
        delay = _RETRY_FIRST
        while True:
            await outbox.changed.wait()
            outbox.changed.clear()
            if _is_starting(outbox):
                await self._pause(outbox)
            try:
                if await self._send(outbox):
                    return
                delay = _RETRY_FIRST
            except (OSError, StatusError) as error:
                if isinstance(error, StatusError) and error.code in (404, 409):
                    return  # another pod of that name, or none: the informer tells the worker
                log.warning("pod %s: the API server was not told: %s", outbox.pod.metadata.name, error)
                delay = await self._try_again(outbox, delay)
            except Exception:
                # The top of the pod's sender: a status that cannot be told must not keep those after it from being told.
                log.exception("pod %s: its status could not be made into a request", outbox.pod.metadata.name)
                delay = await self._try_again(outbox, delay)

    async def _try_again(self, outbox: _Outbox, delay: float) -> float:
        """Wait before another try of what is wanted then; returns how long to wait next time."""
        outbox.changed.set()
        await sleep(self._clock, delay)
        return min(delay * 2, _RETRY_MAX)

    async def _pause(self, outbox: _Outbox) -> None:
        """Wait for the next status, but not for long."""
        timer = self._clock.call_later(_STARTING_SECONDS, outbox.changed.set)
        await outbox.changed.wait()
        outbox.changed.clear()
        timer.cancel()

    async def _send(self, outbox: _Outbox) -> bool:
        """Send what is wanted now; True when the object was deleted."""
        wanted = outbox.wanted
        if wanted is not None and wanted != outbox.sent:
            await self._send_status(outbox, wanted)
        if not outbox.delete or outbox.wanted is not wanted:
            return False
        meta = outbox.pod.metadata
        await self._client.delete(PODS, meta.name, meta.namespace, grace_period=0, uid=meta.uid)
        return True

    async def _send_status(self, outbox: _Outbox, wanted: Json) -> None:
        meta, body = outbox.pod.metadata, status_patch(outbox.pod, outbox.sent, wanted)
        try:
            await self._client.patch(
                PODS, meta.name, body, meta.namespace, kind=PatchType.STRATEGIC, subresource="status"
            )
        except StatusError as error:
            if error.code not in (400, 422):
                raise
            # It would be refused again and again, and must not keep the pod from being deleted.
            log.error("the status of pod %s was refused: %s", meta.name, error)
        outbox.sent = wanted
        self._some_sent.set()


def _is_starting(outbox: _Outbox) -> bool:
    """Whether the server has nothing of ours yet, and all that could be told is that the pod is being started."""
    wanted = outbox.wanted
    return (
        wanted is not None and not outbox.delete and wanted.get("phase") == "Pending" and "startTime" not in outbox.sent
    )
