"""Shows one pod: what its worker's parts know, put together into a status, and given away when it has changed."""

from __future__ import annotations

from typing import Any

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import admission, podstatus, syncpod
from minikube_raw.kubelet.circumstances import Circumstances
from minikube_raw.kubelet.holds import Holds
from minikube_raw.kubelet.probing import Prober
from minikube_raw.kubelet.resizing import Resizer
from minikube_raw.kubelet.restarts import whole_restart
from minikube_raw.kubelet.terminationmessages import LastWords
from minikube_raw.kubelet.tools import Tools
from minikube_raw.kubelet.volumes import recursive_read_only
from minikube_raw.kubelet.wish import Wish

Json = dict[str, Any]


class Reporter:
    """Holds the status that was shown last. `terminated`: nothing of the pod will run any more."""

    def __init__(
        self, tools: Tools, wish: Wish, holds: Holds, prober: Prober, resizer: Resizer, server_has: Json
    ) -> None:
        self.status: Json = {}
        self.terminated = False
        self._tools, self._wish, self._holds = tools, wish, holds
        self._prober, self._resizer = prober, resizer
        self._server_has = server_has
        self._last_words = LastWords(tools.preparation.messages)
        self._told_restart = 0
        self._end_told = False

    @property
    def known(self) -> Json:
        """The status shown last, be it by a kubelet before us."""
        return self.status or self._server_has

    def report(self, pod: Pod, found: syncpod.Found, *, terminating: bool = False) -> None:
        """Show the pod as it is now."""
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
            terminated=self.terminated,
            ending=self._wish.ending,
        )
        status = podstatus.pod_status(pod, found, around, self.known)
        if status != self.status:
            self._show(pod, status)

    def refuse(self, pod: Pod, refused: admission.Refusal) -> None:
        """The pod fails before anything of it is made."""
        self.terminated = True
        self._tools.record(pod, "Warning", refused.reason, refused.message)
        self._show(pod, podstatus.refused_status(pod, refused.reason, refused.message, self._tools.clock.now()))

    def show_restart(self, pod: Pod, found: syncpod.Found) -> bool:
        """Show a restart of all containers as it goes on; True when it has only just been asked for."""
        restart = whole_restart(pod, found.containers)
        if restart is None or restart.begun:
            return False
        self.report(pod, found)
        new = restart.since > self._told_restart
        self._told_restart = restart.since
        return new

    def tell_end(self, pod: Pod, found: syncpod.Found | None) -> None:
        """Show a deleted pod for the last time (None: as it was), then have its object deleted. The second time nothing happens."""
        if self._end_told:
            return
        if found is not None:
            self.report(pod, found, terminating=True)
        self._tools.statuses.delete(pod)
        self._end_told = True

    def _show(self, pod: Pod, status: Json) -> None:
        self.status = status
        self._tools.statuses.set(pod, status, self._server_has)

    def _is_restarting(self, pod: Pod, found: syncpod.Found) -> bool:
        """Whether a restart of all containers has just been asked for, or still waits for some to end."""
        restart = whole_restart(pod, found.containers)
        if restart is None or restart.begun:
            return False
        return restart.running or restart.since > self._told_restart


def as_json(status: msgspec.Struct) -> Json:
    """A view as the JSON it was read from: lists where the view has tuples, so that it compares with what we write."""
    plain: Json = msgspec.json.decode(msgspec.json.encode(status))
    return plain
