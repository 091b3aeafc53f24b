"""A patch from its bytes to the clean, patched object: JSON patch, merge patch and strategic merge patch in one call.

Server-side apply is not here: it needs to know who owns what (`apply`). Nothing here knows the store or tries again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minikube_raw.api import decode, go_text, json_text, patch_json, patch_merge, patch_strategic, status, typed
from minikube_raw.api.decode import Decoded
from minikube_raw.api.schema import Struct, struct

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
MEDIA_TYPES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH)

Object = dict[str, Any]


class Patch:
    """A patch read once, to be applied to whatever is current; a lost race applies it again."""

    def __init__(self, media: str, body: bytes, definition: str, *, strict: bool = False) -> None:
        """Read a patch of the media type. Raises StatusError 400, 413."""
        self._shape: Struct = struct(definition)
        self._media = media
        self._body = body
        self._strict = strict
        self._objections: list[str] = []
        self._patch: Any
        if media == JSON_PATCH:
            self._patch, self._objections = patch_json.parse(body)
        elif media == MERGE_PATCH:
            self._patch = patch_merge.parse(body)
        else:
            self._patch = patch_strategic.parse(body)
        if media != JSON_PATCH and json_text.may_repeat_keys(body, self._patch):
            self._objections = [text for text in decode.objections(self._shape, body) if text.startswith("duplicate")]

    def apply(self, current: Object) -> Decoded:
        """Return the patched object and what strict decoding objects to. Raises StatusError 400, 422, 500."""
        if self._media == STRATEGIC_MERGE_PATCH:
            return self._clean(patch_strategic.apply(current, self._patch, self._shape))
        merge = patch_json.apply if self._media == JSON_PATCH else patch_merge.apply
        return self._clean(merge(current, self._patch))

    def _clean(self, merged: Any) -> Decoded:
        notes: list[str] = []
        try:
            if not isinstance(merged, dict):
                raise typed.DecodeError(
                    f"json: cannot unmarshal {typed.kind_of(merged)} into Go value of type {self._shape.go}"
                )
            obj = typed.read(self._shape, merged, notes)
        except typed.DecodeError as error:
            raise self._invalid(merged, self._words(error)) from None
        objections = [*self._objections, *(decode.unknown_fields(self._shape, merged) if notes else ())]
        if objections and self._strict:
            raise self._invalid(merged, f"strict decoding error: {', '.join(objections)}")
        return Decoded(obj, tuple(objections))

    def _words(self, error: typed.DecodeError) -> str:
        """The strategic merge reads its result with another decoder than the other two, which has other words."""
        return error.restoring() if self._media == STRATEGIC_MERGE_PATCH else str(error)

    def _invalid(self, merged: Any, text: str) -> status.StatusError:
        if self._media == STRATEGIC_MERGE_PATCH:
            shown = go_text.value(self._patch)
        else:
            ordered = dict(sorted(merged.items())) if isinstance(merged, dict) else merged
            shown = msgspec.json.encode(ordered).decode()
        cause = status.Cause("FieldValueInvalid", f"Invalid value: {go_text.quoted(shown)}: {text}", "patch")
        return status.invalid("", "", "", [cause])
