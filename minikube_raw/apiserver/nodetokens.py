"""NodeRestriction for tokens: a node's agent gets tokens for pods that are bound to it, and for audiences those pods name.

The node authorizer has already seen that some pod of the node uses the service account; here the token's own pod is judged
(plugin/pkg/admission/noderestriction, v1.36).
"""

from __future__ import annotations

from collections.abc import Iterator

from minikube_raw.api import status
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.tokens import other_uid


async def admit(registry: Registry, node: str, namespace: str, account: str, spec: Object) -> None:
    """Refuse (403, 404 for a pod that is not there) a TokenRequest of a node that is not for a pod of its own."""
    reference = spec.get("boundObjectRef") or {}
    if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not reference.get("name"):
        raise _refusal(account, "node requested token not bound to a pod")
    if not reference.get("uid"):
        raise _refusal(account, "node requested token with a pod binding without a uid")
    pod = decode((await registry.core("pods").fresh_entry(namespace, reference["name"])).stored)
    if pod["metadata"]["uid"] != reference["uid"]:
        raise _refusal(account, other_uid(reference["uid"]))
    if pod["spec"].get("nodeName") != node:
        raise _refusal(account, "node requested token bound to a pod scheduled on a different node")
    asked = spec.get("audiences") or [""]
    if len(asked) > 1:
        raise _refusal(account, "node may only request 0 or 1 audiences")
    if asked[0] not in _audiences(pod):
        raise _refusal(account, f'audience "{asked[0]}" not found in pod spec volume')


def _audiences(pod: Object) -> Iterator[str]:
    """Yield the audiences for which the pod's volumes want tokens; empty for the API server's own."""
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken") is not None:
                yield source["serviceAccountToken"].get("audience") or ""


def _refusal(account: str, text: str) -> status.StatusError:
    return status.forbidden("", "serviceaccounts", account, text)
