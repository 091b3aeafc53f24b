"""Opening a container's volumes in the kubelet's mount namespace, as detached copies that need no path any more.

A subPath is resolved here and nowhere else: beneath its volume, by descriptor, and what was found is what is mounted. A path
that was looked at before and is looked up again could have become a link to the node's root meanwhile (CVE-2021-30465).
"""

from __future__ import annotations

import os
from typing import Any

from minikube_raw.linux import mounts, paths


def open_volume(entry: dict[str, Any]) -> int:
    """Returns a detached copy of the mounts at a bind entry's source; its `path` is taken `beneath` a directory. Raises OSError."""
    if "beneath" not in entry:
        return mounts.open_tree(entry["source"])
    volume = os.open(entry["beneath"], os.O_PATH | os.O_CLOEXEC)
    try:
        found = paths.open_in_volume(volume, entry["beneath"], entry["path"])
    except OSError as error:
        raise OSError(error.errno, error.strerror, entry["path"]) from None
    finally:
        os.close(volume)
    try:
        return mounts.open_tree("", dirfd=found)
    finally:
        os.close(found)
