"""JSON Merge Patch (RFC 7386): maps merge, null deletes, everything else replaces."""

from __future__ import annotations

from typing import Any

from minikube_raw.api import json_text, status, typed


def parse(body: bytes) -> dict[str, Any]:
    """Read a patch, which must be an object. Raises StatusError 400."""
    try:
        patch = json_text.decode(body)
        if patch is None:
            raise status.bad_request("Invalid JSON Patch")
        if not isinstance(patch, dict):
            found = typed.kind_of(patch)
            raise json_text.JSONError(f"json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
    except json_text.JSONError as error:
        raise status.bad_request(f"error decoding patch: {error}") from None
    return patch


def apply(target: Any, patch: Any) -> Any:
    """Return the merged value; shares what the patch leaves alone with `target`."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = apply(merged.get(key), value)
    return merged
