"""A cgroup's directories: made with their parents, removed, listed. Each call is recorded as a step."""

from __future__ import annotations

import errno
import os

from minikube_raw.linux import steps


def make(directory: str, root: str) -> None:
    """mkdir with missing parents below `root`; one that is there is fine."""
    began = steps.begin()
    try:
        os.mkdir(directory)
    except FileExistsError:
        pass
    except FileNotFoundError:
        parent = os.path.dirname(directory)
        if parent == root:
            raise
        make(parent, root)
        make(directory, root)
    finally:
        steps.end(began, "mkdir", directory)


def remove(directory: str) -> bool:
    """rmdir; True if it is gone, False while it is busy (processes, children)."""
    began = steps.begin()
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    finally:
        steps.end(began, "rmdir", directory)
    return True


def children(directory: str) -> list[str]:
    """Returns the names of the cgroups directly below, [] if the directory is gone."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
