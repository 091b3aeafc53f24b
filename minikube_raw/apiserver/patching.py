"""Patches: interim."""

from __future__ import annotations

from typing import Any

import jsonpatch
import msgspec

from minikube_raw.api.scheme import Kind
from minikube_raw.apiserver import bodies
from minikube_raw.apiserver.resources.strategy import Object, Strategy
from minikube_raw.apiserver.writes import WriteContext
from minikube_raw.client.transport import Request


class Patch:
    creates = False
    warnings: tuple[str, ...] = ()

    def __init__(self, kind: Kind, default: Any, request: Request) -> None:
        self.kind, self.default, self.request = kind, default, request
        self.patch = msgspec.json.decode(bodies.as_json(request))
        self.media = request.content_type.split(";")[0]

    def merge(self, current: Object | None) -> Object:
        if self.media == "application/json-patch+json":
            obj = jsonpatch.apply_patch(current, self.patch)
        else:
            obj = _merge(current, self.patch)
        self.default(obj)
        return obj


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for k, v in patch.items():
        if v is None:
            result.pop(k, None)
        else:
            result[k] = _merge(result.get(k), v)
    return result


def read(strategy: Strategy, request: Request, context: WriteContext, *, subresource: bool) -> Patch:
    return Patch(strategy.kind, strategy.default, request)


def read_plain(kind: Kind, request: Request, context: WriteContext) -> Patch:
    return Patch(kind, lambda o: None, request)
