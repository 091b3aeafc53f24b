"""GC's list of attachments that are still valid (SPEC.md 1.1.0, "GC")."""

from __future__ import annotations

from . import errors
from .errors import CNIError
from .skel import CmdArgs

# libcni writes both, the second for plugins of before the final text
KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")

Attachment = tuple[str, str]  # container id, ifname


def valid(args: CmdArgs) -> set[Attachment] | None:
    """The valid attachments; None when the key is absent, which is no information and not an empty list."""
    for key in KEYS:
        if (listed := args.config.get(key)) is not None:
            try:
                return {(entry["containerID"], entry["ifname"]) for entry in listed}
            except (TypeError, KeyError) as error:
                raise CNIError(errors.INVALID_CONFIG, f"{key} must be a list of {{containerID, ifname}}") from error
    return None


def holds(attachments: set[Attachment], owner: Attachment) -> bool:
    """Whether the owner of a record is among them; a record without ifname belongs to any interface of its container."""
    container_id, ifname = owner
    if ifname:
        return owner in attachments
    return any(container_id == found for found, _ in attachments)
