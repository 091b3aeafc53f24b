"""Errors as the CNI specification numbers them (SPEC.md 1.1.0, section "Error")."""

from __future__ import annotations

from typing import Any

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
# 100 and up are a plugin's own
CHECK_FAILED = 100
ALREADY_ATTACHED = 101
INTERNAL = 999


class CNIError(Exception):
    """A failed CNI operation: `code` decides what a runtime does, `details` says what a person can do."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(f"{message}: {details}" if details else message)
        self.code = code
        self.message = message
        self.details = details

    def to_json(self, cni_version: str) -> dict[str, Any]:
        """The error object a plugin prints on stdout."""
        error: dict[str, Any] = {"cniVersion": cni_version, "code": self.code, "msg": self.message}
        if self.details:
            error["details"] = self.details
        return error
