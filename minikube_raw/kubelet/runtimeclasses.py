"""Which handler of the runtime a pod's RuntimeClass names, and whether this node has it. Asked only for pods that name a class."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.resources import RUNTIME_CLASSES
from minikube_raw.client.rest import Client
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux import features
from minikube_raw.runtime import handlers
from minikube_raw.runtime.cri import RuntimeServiceError

Check = Callable[[Pod], Awaitable[str]]


async def any_handler(pod: Pod) -> str:
    """A host without a master has no classes to ask for: whatever a manifest names, there is one runtime."""
    return ""


def names(options: KubeletOptions) -> list[str]:
    """The handlers that a RuntimeClass may name on this node."""
    return list(dict.fromkeys([*options.runtime_handlers, *options.oci_runtimes]))


def described(options: KubeletOptions) -> list[dict[str, Any]]:
    """NodeStatus.runtimeHandlers: what each can, "" being the one of pods without a class."""
    own = {"recursiveReadOnlyMounts": features.mount_setattr(), "userNamespaces": features.idmapped_mounts()}
    told = []
    for name in ("", *names(options)):
        command = options.runtime_commands.get(name)
        can = own
        if command is not None:
            can = {"recursiveReadOnlyMounts": handlers.supports_recursive_read_only(command), "userNamespaces": False}
        told.append({"name": name, "features": can})
    return told


def checker(client: Client, known: Collection[str]) -> Check:
    """Return what gives a pod's handler, "" without a class; RuntimeServiceError, in a CRI runtime's words, if this node lacks it."""

    async def check(pod: Pod) -> str:
        name = pod.spec.runtime_class_name
        if not name:
            return ""
        try:
            handler = (await client.get(RUNTIME_CLASSES, name)).handler
        except StatusError as error:
            raise RuntimeServiceError("RuntimeClass", str(error)) from error
        except OSError as error:
            raise RuntimeServiceError("RuntimeUnavailable", str(error)) from error
        if handler not in known:
            text = f'rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "{handler}" is configured'
            raise RuntimeServiceError("RuntimeHandler", text)
        return handler

    return check
