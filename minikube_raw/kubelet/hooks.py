"""postStart and preStop: one run of a lifecycle handler in or against a container, and what is said when it fails.

When they run, and what becomes of the container, is `starting`'s and `stopping`'s business. Words are Kubernetes'
(pkg/kubelet/lifecycle/handlers.go).
"""

from __future__ import annotations

import msgspec

from minikube_raw.api.containers import LifecycleHandler
from minikube_raw.client.clock import Clock, sleep
from minikube_raw.kubelet import probe_http
from minikube_raw.kubelet.probe_actions import Asked
from minikube_raw.runtime import cri

_PLAIN_ANSWER = "http: server gave HTTP response to HTTPS client"


class HookError(Exception):
    """A hook failed; the text is the container's waiting message."""


async def run(runtime: cri.RuntimeService, clock: Clock, asked: Asked, handler: LifecycleHandler) -> None:
    """Run a hook to its end; cancelling ends a command too. Raises HookError."""
    if handler.sleep is not None:
        await sleep(clock, handler.sleep.seconds)
    elif handler.exec_ is not None:
        await _exec(runtime, asked, list(handler.exec_.command))
    elif handler.http_get is not None:
        await _http(asked, handler)
    else:
        raise HookError(f"invalid handler: {msgspec.json.encode(handler).decode()}")


def address(pod_ips: tuple[str, ...], node_ip: str, *, host_network: bool) -> str:
    """Where a hook's or probe's connection goes: to the pod, or to the node with hostNetwork."""
    return node_ip if host_network or not pod_ips else pod_ips[0]


async def _exec(runtime: cri.RuntimeService, asked: Asked, command: list[str]) -> None:
    what = f"Exec lifecycle hook ([{' '.join(command)}])"
    try:
        result = await runtime.exec_sync(asked.container_id, command)
    except cri.RuntimeServiceError as error:
        raise HookError(f'{what} {_where(asked)} failed - error: {error}, message: ""') from None
    if result.exit_code:
        stderr = result.stderr.decode(errors="replace")
        said = f"command '{' '.join(command)}' exited with {result.exit_code}: {stderr}"
        output = (result.stdout + result.stderr).decode(errors="replace")
        raise HookError(f"{what} {_where(asked)} failed - error: {said}, message: {_quoted(output)}")


async def _http(asked: Asked, handler: LifecycleHandler) -> None:
    """Any answer is a success; a server that speaks no TLS is asked without, and is not told who is authorised."""
    action = handler.http_get
    assert action is not None
    try:
        where = probe_http.target(action, asked.container, asked.address)
        try:
            await probe_http.get(where)
        except probe_http.ExchangeError as error:
            if action.scheme != "HTTPS" or not str(error).endswith(_PLAIN_ANSWER):
                raise
            headers = tuple(each for each in where.headers if each[0].lower() != "authorization")
            await probe_http.get(probe_http.Target(where.url.replace("https:", "http:", 1), headers))
    except (probe_http.ExchangeError, probe_http.NamedPortError) as error:
        raise HookError(f"HTTP lifecycle hook ({action.path}) {_where(asked)} failed - error: {error}") from None


def _where(asked: Asked) -> str:
    meta = asked.pod.metadata
    return f'for Container "{asked.container.name}" in Pod "{meta.name}_{meta.namespace}({meta.uid})"'


def _quoted(text: str) -> str:
    """Go's %q, which is JSON's but for the rarest characters."""
    return msgspec.json.encode(text).decode()
