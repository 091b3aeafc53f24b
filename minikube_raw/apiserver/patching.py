"""Patches as merges: what a PATCH makes of the current object, read once and applied again when a race is lost."""

from __future__ import annotations

from typing import Protocol

import msgspec

from minikube_raw.api import decode, patch, status
from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import negotiation
from minikube_raw.apiserver.applying import ApplyMerge
from minikube_raw.apiserver.options import WriteOptions
from minikube_raw.apiserver.resources.strategy import Object, Strategy, unchanged
from minikube_raw.apiserver.writes import WriteContext
from minikube_raw.client.transport import Request

_MERGES = (patch.JSON_PATCH, patch.MERGE_PATCH, patch.STRATEGIC_MERGE_PATCH)


class Merge(Protocol):
    """A patch: `merge` gives the wanted object, `warnings` what unknown fields there are; `creates` if it may start from nothing."""

    @property
    def creates(self) -> bool:
        """Whether a missing object is created."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to warn about, known after the merge."""
        ...

    def merge(self, current: Object | None) -> Object:
        """Return the wanted object, defaulted."""
        ...


class PatchMerge:
    """One of the three patches that change what is there."""

    creates = False

    def __init__(self, kind: Kind, strategy: Strategy | None, request: Request, options: WriteOptions) -> None:
        media = negotiation.content_type(request.content_type)
        strict = options.field_validation == "Strict"
        self._kind = kind
        self._default = strategy.default if strategy is not None else unchanged
        self._patch = patch.Patch(media, request.body, kind.definition, strict=strict)
        self._warns = options.field_validation == "Warn"
        self.warnings: tuple[str, ...] = ()

    def merge(self, current: Object | None) -> Object:
        """Patch the current object. Raises 400, 422, 500."""
        assert current is not None
        decoded = self._patch.apply(current)
        try:
            decode.check_kind(decoded.obj, self._kind)
        except status.StatusError as error:
            text = error.message.partition(": ")[2]
            raise _invalid(decoded.obj, text) from None
        if self._warns:
            self.warnings = decoded.strict
        decoded.obj.setdefault("metadata", {})
        self._default(decoded.obj)
        return decoded.obj


def _unsupported() -> status.StatusError:
    return status.StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", status.Details())


def _invalid(obj: Object, text: str) -> status.StatusError:
    ordered = {key: obj[key] for key in sorted(obj)}
    shown = msgspec.json.encode(msgspec.json.encode(ordered).decode()).decode()
    return status.invalid("", "", "", [status.Cause("FieldValueInvalid", f"Invalid value: {shown}: {text}", "patch")])


def read(strategy: Strategy, request: Request, context: WriteContext) -> Merge:
    """Return the merge of a PATCH on an object. Raises 400, 413, 415, 422."""
    media = negotiation.content_type(request.content_type)
    if media == patch.APPLY_PATCH:
        return ApplyMerge(strategy.kind, strategy, request, context)
    if media not in _MERGES:
        raise _unsupported()
    return PatchMerge(strategy.kind, strategy, request, context.options)


def read_plain(kind: Kind, request: Request, context: WriteContext) -> Merge:
    """Return the merge of a PATCH on a subresource with a kind of its own. Raises 400, 413, 415."""
    media = negotiation.content_type(request.content_type)
    if media == patch.APPLY_PATCH:
        return ApplyMerge(kind, None, request, context)
    if media not in _MERGES:
        raise _unsupported()
    return PatchMerge(kind, None, request, context.options)
