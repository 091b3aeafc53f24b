"""Which handler of the runtime a pod's RuntimeClass names, and whether this node has it. Asked only for pods that name a class."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from minikube_raw.api.core import Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.resources import RUNTIME_CLASSES
from minikube_raw.client.rest import Client
from minikube_raw.runtime.cri import RuntimeServiceError

Check = Callable[[Pod], Awaitable[None]]


async def any_handler(pod: Pod) -> None:
    """A host without a master has no classes to ask for: whatever a manifest names, there is one runtime."""


def checker(client: Client, handlers: Collection[str]) -> Check:
    """Return what raises RuntimeServiceError, in the words of a CRI runtime, for a pod whose handler this node lacks."""

    async def check(pod: Pod) -> None:
        name = pod.spec.runtime_class_name
        if not name:
            return
        try:
            handler = (await client.get(RUNTIME_CLASSES, name)).handler
        except StatusError as error:
            raise RuntimeServiceError("RuntimeClass", str(error)) from error
        except OSError as error:
            raise RuntimeServiceError("RuntimeUnavailable", str(error)) from error
        if handler not in handlers:
            text = f'rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "{handler}" is configured'
            raise RuntimeServiceError("RuntimeHandler", text)

    return check
