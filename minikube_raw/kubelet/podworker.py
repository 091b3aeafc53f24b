"""One worker per pod: looks, decides by `syncpod`, acts, has it shown (`reporting`); again whenever something may have changed.

Level-triggered: `update` and `look_again` only say that another look is due; a change while it works leads to one more
round. It never polls; waits (back-off, grace) are timers or the runtime's answers. Starts are `starting`'s, ends `podend`'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import admission, ending, ephemeral, grace, syncpod
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.holds import Holds
from minikube_raw.kubelet.podend import PodEnd
from minikube_raw.kubelet.pods import all_containers, is_terminal, key
from minikube_raw.kubelet.probing import Prober, said_before
from minikube_raw.kubelet.reporting import Reporter, as_json
from minikube_raw.kubelet.resizing import Resizer
from minikube_raw.kubelet.starting import BACKING_OFF, Starter
from minikube_raw.kubelet.tools import Tools
from minikube_raw.kubelet.wish import Wish

log = logging.getLogger(__name__)
Json = dict[str, Any]
RESIZE_RETRY_SECONDS = 10.0


class PodWorker:
    """Drives one pod (by uid) from its first sight until nothing of it is left."""

    def __init__(self, uid: str, tools: Tools, pod: Pod | None = None) -> None:
        self.uid = uid
        self._tools = tools
        self._wish = Wish(pod)
        self._busy = asyncio.Lock()
        self._due = asyncio.Event()
        self._due.set()
        self._changed = asyncio.Event()
        server_has = as_json(pod.status) if pod is not None else {}
        self._holds = Holds(tools.clock, self._timer_fired)
        self._starter = Starter(uid, tools, self._holds)
        self._prober = Prober(tools, self._verdict, before=said_before(server_has))
        self._resizer = Resizer(tools)
        self._reporter = Reporter(tools, self._wish, self._holds, self._prober, self._resizer, server_has)
        self._end = PodEnd(uid, tools, self._wish, self._reporter, self._prober, self._holds, self._changed)
        self._driven: Pod | None = None  # the wish of this round
        self._stale_volumes = True  # pods of an earlier kubelet: follow their objects again

    @property
    def pod(self) -> Pod | None:
        """The pod as it was asked for last."""
        return self._wish.pod

    @property
    def status(self) -> Json:
        """The status shown last."""
        return self._reporter.status

    @property
    def ended(self) -> bool:
        """Whether nothing of the pod runs, or will; its object may still be there."""
        return self._end.done

    def update(self, pod: Pod | None) -> None:
        """Tell the newest wish; None when the object is gone. What is only an echo of our own status wakes nobody."""
        if self._wish.take(pod):
            self._stale_volumes = True  # labels and annotations are in downward files, and may be in subPaths
            self._holds.release_all_but(BACKING_OFF)
            self._changed.set()
            self._due.set()
            if self._wish.must_end:
                self._starter.interrupt()

    def end(self, ending: Ending) -> None:
        """Stop the whole pod and show it as Failed with a reason.

        The first reason holds, and the shortest grace; a pod that has ended stays as it is.
        """
        self._wish.ending = ending if self._wish.ending is None else self._wish.ending.hastened(ending)
        self._changed.set()
        self._due.set()
        self._starter.interrupt()

    async def remove_dead(self) -> None:
        """Let go of the containers and logs of a pod that has ended; its status stays as it is."""
        if self._reporter.terminated:
            async with self._busy:
                await self._end.remove_dead()

    def room_freed(self) -> None:
        """Another pod has ended or takes less: what waits for room, a resize or a critical pod at its start, may have it now."""
        if self._resizer.waits_for_room or not self.status:
            self._due.set()

    def look_again(self) -> None:
        """Something about the pod may have changed on the node."""
        self._due.set()

    def _verdict(self) -> None:
        """A probe changed its mind: about what to do next, or, while the pod is being stopped, about what to say."""
        self._changed.set()
        self._due.set()

    def objects_changed(self) -> None:
        """An object the pod refers to changed: refresh volumes, try containers again that waited for it."""
        self._stale_volumes = True
        self._holds.release_all_but(BACKING_OFF)
        self._due.set()

    async def run(self) -> None:
        """Work until the pod is gone from API server and node."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                async with self._busy:
                    if await self._sync():
                        return
            except Exception:
                # The top of the pod's loop: whatever one pod runs into must not end its worker, nor the others'.
                log.exception("pod %s: another try in a second", self.uid)
                self._holds.look_again_at(self._tools.clock.now() + 1)

    # -- one look ----------------------------------------------------------------------------------------------------

    async def _sync(self) -> bool:
        """One round; True when nothing is left to do, ever."""
        self._driven = wish = self._wish.pod
        pod = None if wish is None else self._resizer.allocated(wish)
        if pod is None or self._wish.deleted:
            return await self._end.terminate(pod)
        if is_terminal(pod) or self._reporter.terminated:
            await self._end.keep(pod)
        elif (refused := self._refusal(pod)) is not None:
            self._reporter.refuse(pod, refused)
            self._end.done = True
        elif self._is_over(pod):
            await self._end.end(pod)
        elif not self._tools.room.awaits(self.uid):
            await self._drive(pod)
        return False

    async def _drive(self, pod: Pod) -> None:
        """Act until there is nothing to do at this moment."""
        while not self._reporter.terminated and not self._is_over(pod) and not self._wish.has_left(self._driven):
            found = await self._tools.find(self.uid)
            pod = await self._resize(pod, found)
            self._prober.follow(pod, found)
            self._tools.links.follow(self.uid, found.containers)
            if self._reporter.show_restart(pod, found):
                continue
            acting = self._decide(pod, found)
            if not acting or not self.status:
                self._reporter.report(pod, found)
                self._await_deadline(pod)
            if not acting:
                break
            for action in acting:
                await self._act(pod, action, found)
                if self._wish.has_left(self._driven):
                    break
        if self._stale_volumes and not self._reporter.terminated:
            self._stale_volumes = False
            if not await self._starter.set_up_volumes(pod):
                self._stale_volumes = True
        self._await_deadline(pod)

    async def _resize(self, pod: Pod, found: syncpod.Found) -> Pod:
        """Bring the cgroups to what the wish asks for, if the node has it. Returns the pod as it is driven from now on."""
        pod = self._resizer.look(self._driven or pod, found, self._reporter.known)
        if self._resizer.in_progress:
            self._reporter.report(pod, found)
            if not await self._resizer.carry_out(pod, found):
                self._holds.look_again_at(self._tools.clock.now() + RESIZE_RETRY_SECONDS)
        return pod

    def _is_over(self, pod: Pod) -> bool:
        """Whether somebody ended the pod as a whole, or its deadline has passed."""
        last = ending.deadline(pod, self._reporter.known)
        if self._wish.ending is None and last is not None and self._tools.clock.now() >= last:
            self._wish.ending = ending.DEADLINE
            self._tools.record(pod, "Normal", ending.DEADLINE.reason, ending.DEADLINE.message)
        return self._wish.ending is not None

    def _timer_fired(self) -> None:
        """A wait is over: a container's, or the pod's deadline, for which no hook is waited."""
        self._due.set()
        last = ending.deadline(self.pod, self._reporter.known) if self.pod is not None else None
        if last is not None and self._tools.clock.now() >= last:
            self._starter.interrupt()

    def _await_deadline(self, pod: Pod) -> None:
        last = ending.deadline(pod, self._reporter.known)
        if not self._reporter.terminated and last is not None:
            self._holds.look_again_at(last)
            if self._is_over(pod):
                self._due.set()

    def _refusal(self, pod: Pod) -> admission.Refusal | None:
        """What speaks against the pod; a kubelet that shows it started has admitted it, be it one before us."""
        started = bool(self._reporter.known.get("startTime"))
        return admission.refusal(pod, self._tools.node().security) or self._tools.room.refusal(pod, started=started)

    def _decide(self, pod: Pod, found: syncpod.Found) -> list[syncpod.Action]:
        """What to do at this moment; what has to wait gets a timer."""
        now = self._tools.clock.now()
        waits = {each.name: self._starter.restarts.get(each.name) for each in all_containers(pod)}
        acting: list[syncpod.Action] = []
        health = syncpod.Health(self._prober.not_started(), self._prober.failed())
        wanted = (*syncpod.compute_actions(pod, found, waits, now, health), *ephemeral.actions(pod, found))
        for action in (*wanted, *self._resizer.stops(pod, found)):
            if isinstance(action, syncpod.Wait):
                self._starter.back_off(pod, action)
            elif isinstance(action, syncpod.Pause):
                self._holds.look_again_at(action.until)
            elif not self._is_held(action):
                acting.append(action)
        return acting

    def _is_held(self, action: syncpod.Action) -> bool:
        match action:
            case syncpod.RunSandbox():
                return self._holds.is_held("")
            case syncpod.StartContainer():
                return self._holds.is_held(action.name)
        return False

    async def _act(self, pod: Pod, action: syncpod.Action, found: syncpod.Found) -> None:
        match action:
            case syncpod.RunSandbox():
                self._stale_volumes = False
                await self._starter.run_sandbox(pod, action)
            case syncpod.StartContainer():
                failed = await self._starter.start(pod, action, found)
                if failed:
                    await self._end.stop_one(pod, failed, "FailedPostStartHook")
                    self._reporter.report(pod, await self._tools.find(self.uid))
            case syncpod.StopContainer():
                await self._end.stop_one(
                    pod, action.container_id, action.message, grace.of_probe(pod, action), hook=action.hook
                )
                if (
                    action.again
                    and not self._wish.has_left(self._driven)
                    and (last := found.latest(action.name)) is not None
                ):
                    again = syncpod.StartContainer(action.name, last.attempt + 1, self._tools.clock.now())
                    await self._starter.start(pod, again, found)
            case syncpod.Finish():
                await self._end.finish(pod)
            case syncpod.Wait() | syncpod.Pause():
                pass

    def __repr__(self) -> str:
        return f"PodWorker({key(self.pod) if self.pod else self.uid})"
