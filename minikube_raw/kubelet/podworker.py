"""One worker per pod: looks, decides by `syncpod`, acts, reports; again whenever something may have changed.

Level-triggered: `update` and `look_again` only say that another look is due; a change while it works leads to one more
round. It never polls; waits (back-off, grace) are timers or the runtime's answers. Created and owned by `kubelet`.
"""

from __future__ import annotations

import asyncio
import glob
import logging
import shutil
from pathlib import Path
from typing import Any

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import admission, ending, ephemeral, grace, podstatus, syncpod
from minikube_raw.kubelet.circumstances import Circumstances
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.holds import Holds
from minikube_raw.kubelet.pods import all_containers, is_terminal, key, same_wish
from minikube_raw.kubelet.probing import Prober, said_before
from minikube_raw.kubelet.resizing import Resizer
from minikube_raw.kubelet.restarts import whole_restart
from minikube_raw.kubelet.starting import BACKING_OFF, Starter
from minikube_raw.kubelet.stopping import Stop, Stopper
from minikube_raw.kubelet.terminationmessages import LastWords
from minikube_raw.kubelet.tools import Tools
from minikube_raw.kubelet.volumes import recursive_read_only
from minikube_raw.runtime import cri

log = logging.getLogger(__name__)
Json = dict[str, Any]
RESIZE_RETRY_SECONDS = 10.0


class PodWorker:
    """Drives one pod (by uid) from its first sight until nothing of it is left."""

    def __init__(self, uid: str, tools: Tools, pod: Pod | None = None) -> None:
        self.uid = uid
        self.pod = pod
        self.status: Json = {}
        self._tools = tools
        self._wanted = True
        self._server_has: Json = _as_json(pod.status) if pod is not None else {}
        self._busy = asyncio.Lock()
        self._due = asyncio.Event()
        self._due.set()
        self._changed = asyncio.Event()
        self._holds = Holds(tools.clock, self._timer_fired)
        self._starter = Starter(uid, tools, self._holds)
        self._stopper = Stopper(tools, self._changed)
        self._prober = Prober(tools, self._verdict, before=said_before(self._server_has))
        self._last_words = LastWords(tools.preparation.messages)
        self._resizer = Resizer(tools)
        self._told_restart = 0
        self._driven: Pod | None = None  # the wish of this round
        self._ending: Ending | None = None
        self._terminated = False
        self._end_told = False
        self._cleaned = False
        self._stale_volumes = True  # pods of an earlier kubelet: follow their objects again
        self._log_directories: set[str] = set()

    def update(self, pod: Pod | None) -> None:
        """Tell the newest wish; None when the object is gone. What is only an echo of our own status wakes nobody."""
        echo = pod is not None and self._wanted and self.pod is not None and same_wish(self.pod, pod)
        self._wanted = pod is not None
        self.pod = pod or self.pod
        if not echo:
            self._stale_volumes = True  # labels and annotations are in downward files, and may be in subPaths
            self._holds.release_all_but(BACKING_OFF)
            self._changed.set()
            self._due.set()
            if self._must_end():
                self._starter.interrupt()

    def end(self, ending: Ending) -> None:
        """Stop the whole pod and show it as Failed with a reason. The first one holds; a pod that has ended stays as it is."""
        self._ending = self._ending or ending
        self._changed.set()
        self._due.set()
        self._starter.interrupt()

    async def remove_dead(self) -> None:
        """Let go of the containers and logs of a pod that has ended; its status stays as it is."""
        if not self._terminated:
            return
        async with self._busy:
            found = await self._tools.find(self.uid)
            for sandbox in found.sandboxes:
                await self._tools.runtime.remove_pod_sandbox(sandbox.id)
            if found.sandboxes:
                await self._remove_logs()

    def room_freed(self) -> None:
        """Another pod has ended: what waits for room, a resize or a critical pod at its start, may have it now."""
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
        self._driven = self.pod
        pod = None if self.pod is None else self._resizer.allocated(self.pod)
        if pod is None or not self._wanted or pod.metadata.deletion_timestamp is not None:
            return await self._terminate(pod)
        if is_terminal(pod) or self._terminated:
            await self._end_terminal(pod)
        elif (refused := self._refusal(pod)) is not None:
            self._refuse(pod, refused)
        elif self._is_over(pod):
            await self._end(pod)
        elif not self._tools.room.awaits(self.uid):
            await self._drive(pod)
        return False

    async def _drive(self, pod: Pod) -> None:
        """Act until there is nothing to do at this moment."""
        while not self._terminated and not self._is_over(pod) and not self._superseded():
            found = await self._tools.find(self.uid)
            pod = await self._resize(pod, found)
            self._prober.follow(pod, found)
            self._tools.links.follow(self.uid, found.containers)
            if self._tell_restart(pod, found):
                continue
            acting = self._decide(pod, found)
            if not acting or not self.status:
                self._report(pod, found)
                self._await_deadline(pod)
            if not acting:
                break
            for action in acting:
                await self._act(pod, action, found)
                if self._superseded():
                    break
        if self._stale_volumes and not self._terminated:
            self._stale_volumes = False
            if not await self._starter.set_up_volumes(pod):
                self._stale_volumes = True
        self._await_deadline(pod)

    def _tell_restart(self, pod: Pod, found: syncpod.Found) -> bool:
        """Show a restart of all containers as it goes on; True when it has only just been asked for."""
        restart = whole_restart(pod, found.containers)
        if restart is None or restart.begun:
            return False
        self._report(pod, found)
        new = restart.since > self._told_restart
        self._told_restart = restart.since
        return new

    async def _resize(self, pod: Pod, found: syncpod.Found) -> Pod:
        """Bring the cgroups to what the wish asks for, if the node has it. Returns the pod as it is driven from now on."""
        pod = self._resizer.look(self._driven or pod, found, self.status or self._server_has)
        if self._resizer.in_progress:
            self._report(pod, found)
            if not await self._resizer.carry_out(pod, found):
                self._holds.look_again_at(self._tools.clock.now() + RESIZE_RETRY_SECONDS)
        return pod

    def _is_over(self, pod: Pod) -> bool:
        """Whether somebody ended the pod as a whole, or its deadline has passed."""
        last = ending.deadline(pod, self.status or self._server_has)
        if self._ending is None and last is not None and self._tools.clock.now() >= last:
            self._ending = ending.DEADLINE
            self._tools.record(pod, "Normal", self._ending.reason, self._ending.message)
        return self._ending is not None

    def _timer_fired(self) -> None:
        """A wait is over: a container's, or the pod's deadline, for which no hook is waited."""
        self._due.set()
        last = ending.deadline(self.pod, self.status or self._server_has) if self.pod is not None else None
        if last is not None and self._tools.clock.now() >= last:
            self._starter.interrupt()

    def _await_deadline(self, pod: Pod) -> None:
        last = ending.deadline(pod, self.status or self._server_has)
        if not self._terminated and last is not None:
            self._holds.look_again_at(last)
            if self._is_over(pod):
                self._due.set()

    def _refusal(self, pod: Pod) -> admission.Refusal | None:
        """What speaks against the pod; a kubelet that shows it started has admitted it, be it one before us."""
        started = bool(self.status.get("startTime") or self._server_has.get("startTime"))
        return admission.refusal(pod, self._tools.node().security) or self._tools.room.refusal(pod, started=started)

    def _refuse(self, pod: Pod, refused: admission.Refusal) -> None:
        """The pod fails before anything of it is made."""
        self._terminated = True
        self._tools.record(pod, "Warning", refused.reason, refused.message)
        self.status = podstatus.refused_status(pod, refused.reason, refused.message, self._tools.clock.now())
        self._tools.statuses.set(pod, self.status, self._server_has)

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

    def _superseded(self) -> bool:
        """Whether the wish has changed so that another round must decide."""
        driven, wish = self._driven, self.pod
        changed = driven is not wish and driven is not None and wish is not None and not same_wish(driven, wish)
        return self._must_end() or changed

    def _must_end(self) -> bool:
        """Whether the pod is deleted, or ended as a whole."""
        deleted = self.pod is not None and self.pod.metadata.deletion_timestamp is not None
        return not self._wanted or deleted or self._ending is not None

    async def _act(self, pod: Pod, action: syncpod.Action, found: syncpod.Found) -> None:
        match action:
            case syncpod.RunSandbox():
                self._stale_volumes = False
                await self._starter.run_sandbox(pod, action)
            case syncpod.StartContainer():
                failed = await self._starter.start(pod, action, found)
                if failed:
                    await self._stop_one(pod, failed, "FailedPostStartHook")
                    self._report(pod, await self._tools.find(self.uid))
            case syncpod.StopContainer():
                await self._stop_one(
                    pod, action.container_id, action.message, grace.of_probe(pod, action), hook=action.hook
                )
                if action.again and not self._superseded() and (last := found.latest(action.name)) is not None:
                    again = syncpod.StartContainer(action.name, last.attempt + 1, self._tools.clock.now())
                    await self._starter.start(pod, again, found)
            case syncpod.Finish():
                await self._finish(pod)
            case syncpod.Wait():
                pass

    # -- reporting ---------------------------------------------------------------------------------------------------

    def _report(self, pod: Pod, found: syncpod.Found, *, terminating: bool = False) -> None:
        if self._end_told:
            return  # what is left to see is no longer the pod's end, but its absence
        around = Circumstances(
            host_ip=self._tools.node().ip,
            now=self._tools.clock.now(),
            waiting=self._holds.waiting(),
            image_names=self._tools.preparation.image_names,
            unready=self._prober.unready(),
            not_started=self._prober.not_started(),
            messages=self._last_words.of(pod, found.containers),
            actual=self._resizer.actual(pod, found),
            whole=self._resizer.whole,
            resizing=self._resizer.conditions(),
            restarting=self._is_restarting(pod, found),
            recursive_read_only=recursive_read_only(),
            terminating=terminating,
            terminated=self._terminated,
            ending=self._ending,
        )
        status = podstatus.pod_status(pod, found, around, self.status or self._server_has)
        if status != self.status:
            self.status = status
            self._tools.statuses.set(pod, status, self._server_has)

    def _is_restarting(self, pod: Pod, found: syncpod.Found) -> bool:
        """Whether a restart of all containers has just been asked for, or still waits for some to end."""
        restart = whole_restart(pod, found.containers)
        if restart is None or restart.begun:
            return False
        return restart.running or restart.since > self._told_restart

    # -- ending ------------------------------------------------------------------------------------------------------

    async def _finish(self, pod: Pod) -> None:
        """All main containers have ended for good: stop sidecars and sandbox, then show the terminal phase."""
        found = await self._tools.find(self.uid)
        if found.running():
            self._report(pod, found)
            await self._stop_all(pod, found)
        for sandbox in found.sandboxes:
            await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        self._terminated = True
        self._report(pod, await self._tools.find(self.uid))
        await self._release_volumes()
        self._tools.room.release(self.uid)

    async def _end(self, pod: Pod) -> None:
        """Stop everything, then show why. Nothing is removed: the containers' logs stay as long as the object."""
        found = await self._tools.find(self.uid)
        self._report(pod, found)
        await self._stop_all(pod, found)
        await self._finish(pod)

    async def _end_terminal(self, pod: Pod) -> None:
        """A pod that is Succeeded or Failed already: nothing of it runs; its containers stay for their logs."""
        self._terminated = True
        self._tools.room.release(self.uid)
        self._prober.stop()
        found = await self._tools.find(self.uid)
        self._tools.links.follow(self.uid, found.containers)
        for sandbox in found.sandboxes:
            if sandbox.state is cri.SandboxState.READY:
                await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        if found.sandboxes:
            self._report(pod, found)
        await self._release_volumes()

    async def _release_volumes(self) -> None:
        """Nothing reads a pod's volumes once it has ended, and they may be what fills the disk."""
        if self._ending is None or not self._ending.keeps_volumes:
            await self._tools.preparation.release_volumes(self.uid)

    async def _terminate(self, pod: Pod | None) -> bool:
        """Stop everything with the grace the deletion gives, show the end, delete the object; True when all is gone."""
        if not self._cleaned:
            await self._stop_and_remove(pod)
        if self._wanted:
            return False
        self._tools.statuses.forget(self.uid)
        await self._remove_logs()
        return True

    async def _remove_logs(self) -> None:
        left = {str(each) for each in Path(self._tools.logs_dir).glob(f"*_{glob.escape(self.uid)}")}
        for directory in self._log_directories | left:
            await asyncio.to_thread(shutil.rmtree, directory, True)

    async def _stop_and_remove(self, pod: Pod | None) -> None:
        found = await self._tools.find(self.uid)
        running = found.running()
        if running:
            if pod is not None and self._wanted:
                self._report(pod, found, terminating=True)
            await self._stop_all(pod, found)
        for sandbox in found.sandboxes:
            await self._tools.runtime.stop_pod_sandbox(sandbox.id)
        self._terminated = True
        self._tools.room.release(self.uid)
        if pod is not None and self._wanted and not self._end_told:
            if found.sandboxes or not _has_ended(self.status or self._server_has):
                self._report(pod, await self._tools.find(self.uid), terminating=True)
            self._tools.statuses.delete(pod)
            self._end_told = True
        await self._clean_up(pod, found)
        self._cleaned = True

    async def _stop_all(self, pod: Pod | None, found: syncpod.Found) -> None:
        """Every container, in the pod's order; a readiness that changes meanwhile is shown."""
        running = found.running()

        async def meanwhile() -> None:
            if pod is not None and self._wanted:
                self._report(pod, await self._tools.find(self.uid), terminating=True)

        if pod is not None:
            self._prober.follow(pod, found, ending=True)
        ips = found.sandbox.ips if found.sandbox is not None else ()
        stops = [Stop(each, f"Stopping container {each.name}") for each in running]
        await self._stopper.stop(pod, stops, lambda: self._grace(running), ips, meanwhile)
        self._prober.stop()

    async def _stop_one(
        self, pod: Pod, container_id: str, message: str, own: int | None = None, *, hook: bool = True
    ) -> None:
        found = await self._tools.find(self.uid)
        running = [each for each in found.running() if each.id == container_id]
        ips = found.sandbox.ips if found.sandbox is not None else ()
        stops = [Stop(each, message, hook) for each in running]
        await self._stopper.stop(pod, stops, lambda: self._grace(running, own), ips)

    def _grace(self, running: list[cri.ContainerStatus], own: int | None = None) -> float:
        if self.pod is None:
            return grace.noted(running)
        return grace.seconds(self.pod, own, self._ending, gone=not self._wanted)

    async def _clean_up(self, pod: Pod | None, found: syncpod.Found) -> None:
        """Remove what the pod has on the node, but its logs: they can be read as long as the object is there."""
        for sandbox in found.sandboxes:
            self._log_directories.add(sandbox.config.log_directory)
            await self._tools.runtime.remove_pod_sandbox(sandbox.id)
        self._tools.links.follow(self.uid, ())
        await self._tools.preparation.release(self.uid, pod)
        self._holds.cancel()
        self._prober.stop()

    def __repr__(self) -> str:
        return f"PodWorker({key(self.pod) if self.pod else self.uid})"


def _has_ended(status: Json) -> bool:
    return status.get("phase") in ("Succeeded", "Failed")


def _as_json(status: msgspec.Struct) -> Json:
    """A view as the JSON it was read from: lists where the view has tuples, so that it compares with what we write."""
    plain: Json = msgspec.json.decode(msgspec.json.encode(status))
    return plain
