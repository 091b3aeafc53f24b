"""node/v1 as a read-only view."""

from __future__ import annotations

from minikube_raw.api.meta import ObjectMeta, View


class RuntimeClass(View, frozen=True, gc=False):
    """node/v1.RuntimeClass: the name of a handler of the node's runtime."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    handler: str = ""
