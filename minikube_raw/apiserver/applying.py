"""Server-side apply as a merge: one manager's configuration into the live object, or a new object made of it."""

from __future__ import annotations

from minikube_raw.api import apply, status, times
from minikube_raw.api.managed_fields import APPLY, Manager
from minikube_raw.api.schema import struct
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import ownership
from minikube_raw.apiserver.resources.strategy import Object, Strategy, unchanged
from minikube_raw.apiserver.writes import WriteContext
from minikube_raw.client.transport import Request


class ApplyMerge:
    """An apply patch, read once. A configuration for a missing object creates it."""

    creates = True

    def __init__(self, kind: Kind, strategy: Strategy | None, request: Request, context: WriteContext) -> None:
        options = context.options
        self._kind = kind
        self._default = strategy.default if strategy is not None else unchanged
        strict = options.field_validation == "Strict"
        self._config, repeated = apply.parse(request.body, kind, strict=strict)
        self._check_names(context)
        self.warnings = tuple(repeated) if options.field_validation == "Warn" else ()
        self._context = context
        self._manager = Manager(options.field_manager, APPLY, kind.api_version, context.info.subresource)

    def _check_names(self, context: WriteContext) -> None:
        metadata = self._config["metadata"] = self._config.get("metadata") or {}
        if not isinstance(metadata, dict):
            return  # the typed judgement has words for this
        name = metadata.setdefault("name", context.info.name)
        if name != context.info.name:
            text = f"the name of the object ({name}) does not match the name on the URL ({context.info.name})"
            raise status.bad_request(text)

    def merge(self, current: Object | None) -> Object:
        """Return the merged object with its managedFields. Raises 400, 409, 422, 500."""
        metadata = self._config["metadata"]
        uid = metadata.get("uid") if isinstance(metadata, dict) else None
        if current is None and uid:
            text = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise status.conflict(self._kind.group, self._kind.plural, self._context.info.name, text)
        applied = apply.apply(
            struct(self._kind.definition),
            current,
            self._config,
            self._manager,
            times.time(self._context.now()),
            force=self._context.options.force,
            reset=ownership.reset(self._kind, self._context.info.subresource),
        )
        self._default(applied.obj)
        return applied.obj
