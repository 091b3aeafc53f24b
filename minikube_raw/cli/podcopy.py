"""`pod cp`: files and directories between this host and a running container, with nothing needed in its image.

The container's root is entered by descriptor and every name below it is resolved as a process chrooted there would
(openat2, RESOLVE_IN_ROOT); while a tree is copied no link is followed on either side, and what is neither file, directory
nor link is left out. A link that leads out of what is copied is left out too, with a word of warning.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from minikube_raw.api.plain_text import one_line
from minikube_raw.cli import podagent, podbundle
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.cli.main import Options
from minikube_raw.cli.podagent import container_option, namespace_option
from minikube_raw.linux import paths
from minikube_raw.runtime.layout import Layout
from minikube_raw.runtime.pods import is_alive, read_identity

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_DEPTH = 256


@click.command()
@click.argument("source")
@click.argument("destination")
@namespace_option
@container_option
@click.pass_obj
def cp(options: Options, source: str, destination: str, namespace: str, container: str) -> None:
    """Copy SOURCE to DESTINATION; one of them is POD:PATH, the other a path of this host.

    A directory is copied with what is below it. If DESTINATION is a directory, the copy goes into it.
    """
    need_root("copying into and out of a container")
    (pod, inner), outer = _sides(source, destination)
    agent = podagent.agent_of(options)
    found = podagent.pod(agent, namespace, pod)
    try:
        wanted = podbundle.running_id(found, podagent.container(found, container))
    except LookupError as error:
        raise Failure(str(error), "only a running container's files can be copied") from error
    copy = Copy()
    with _root_of(Layout(agent.state_dir, agent.run_dir), wanted) as (root, owner):
        if source.startswith(f"{pod}:"):
            _copy_out(copy, root, inner, outer)
        else:
            copy.owner = owner
            _copy_in(copy, root, outer, inner)
    for line in copy.left_out[:20]:
        click.echo(f"left out {one_line(line)}", err=True)


def _sides(source: str, destination: str) -> tuple[tuple[str, str], str]:
    """((pod, path inside), path outside). A host's path with a colon is written with a slash before it."""
    inside = [each for each in (source, destination) if ":" in each and "/" not in each.partition(":")[0]]
    if len(inside) != 1:
        raise Failure(f"cannot tell what to copy from {source} to {destination}", "write one of them as POD:PATH")
    pod, _, path = inside[0].partition(":")
    if not pod or not path:  # a forgotten path is not the container's whole root
        raise Failure(f"{inside[0]} lacks its {'path' if pod else 'pod'}", "write it as POD:PATH")
    # Without . and .. in it: the last name is looked up by itself. /a/.. is /, whatever /a is.
    return (pod, posixpath.normpath(f"/{path.lstrip('/')}")), destination if inside[0] is source else source


@contextmanager
def _root_of(layout: Layout, container_id: str) -> Iterator[tuple[int, tuple[int, int]]]:
    """A container's root as its first process has it, and who root is there (host's uid and gid)."""
    identity = read_identity(layout, container_id)
    if identity is None:
        raise Failure(f"container {container_id[:12]} has no process", "only a running container's files can be copied")
    root = os.open(f"/proc/{identity.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owner = _mapped_root(identity.pid, "uid"), _mapped_root(identity.pid, "gid")
        if not is_alive(identity):  # the number may have become another process's meanwhile
            raise Failure(f"container {container_id[:12]} has ended", "only a running container's files can be copied")
        yield root, owner
    finally:
        os.close(root)


def _mapped_root(pid: int, kind: str) -> int:
    for line in Path(f"/proc/{pid}/{kind}_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= 0 < inside + count:
            return outside
    return 0


def _copy_out(copy: Copy, root: int, inner: str, outer: str) -> None:
    try:
        parent = paths.open_in_root(root, posixpath.dirname(inner.rstrip("/")) or "/", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Failure(f"{inner} in the container: {error.strerror}", "give a path that is there") from error
    name = posixpath.basename(inner.rstrip("/")) or "."
    target = os.path.join(outer, name) if os.path.isdir(outer) and name != "." else outer
    try:
        directory, base = os.path.split(os.path.abspath(target))
        with _opened(directory) as there:
            copy.entry(parent, name, there, base)
    except OSError as error:
        raise _failed(f"copying {inner} of the container to {target}", error) from error
    finally:
        os.close(parent)


def _copy_in(copy: Copy, root: int, outer: str, inner: str) -> None:
    directory, base = os.path.split(os.path.abspath(outer))
    try:
        into = _is_directory(root, inner)
        parent_path = inner if into else posixpath.dirname(inner.rstrip("/")) or "/"
        name = base if into else posixpath.basename(inner.rstrip("/"))
        parent = paths.open_in_root(root, parent_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with _opened(directory) as here:
                copy.entry(here, base, parent, name)
        finally:
            os.close(parent)
    except OSError as error:
        raise _failed(f"copying {outer} to {inner} of the container", error) from error


def _failed(what: str, error: OSError) -> Failure:
    """The name is the one that the kernel was asked for; the call it was asked by is no concern of the user's."""
    why = (error.strerror or "").rpartition(": ")[2]
    cures = {
        errno.ENOENT: "name a file that is there, and a directory to copy it to that is",
        errno.ENOSPC: "free space there",
    }
    cures[errno.EROFS] = "choose a directory that can be written, such as a volume's"
    return Failure(f"{what}: {why}: {error.filename or ''}".rstrip(": "), cures.get(error.errno or 0, ""))


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_directory(root: int, path: str) -> bool:
    try:
        found = paths.open_in_root(root, path)
    except FileNotFoundError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(found).st_mode)
    finally:
        os.close(found)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Copy:
    """Copies one entry and all below it from one directory's descriptor to another's, following nothing."""

    def __init__(self) -> None:
        self.owner: tuple[int, int] | None = None  # whose the copies are; None: ours
        self.left_out: list[str] = []

    def _leave_out(self, path: str, why: str) -> None:
        if not path:
            raise Failure(f"nothing is copied: {why}", "name a file or a directory")
        self.left_out.append(f"{path}: {why}")

    def entry(self, source: int, name: str, target: int, new_name: str, path: str = "", depth: int = 0) -> None:
        """Copy an entry under a new name; files are replaced, directories filled. Raises OSError.

        `path` is where it lies below what is copied, "" for that itself.
        """
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            self._directory(source, name, target, new_name, path, depth, found)
        elif stat.S_ISREG(found.st_mode):
            self._file(source, name, target, new_name, found)
        elif stat.S_ISLNK(found.st_mode):
            self._link(os.readlink(name, dir_fd=source), target, new_name, path)
        else:
            self._leave_out(path, "it is neither a file nor a directory nor a link")

    def _directory(
        self, source: int, name: str, target: int, new_name: str, path: str, depth: int, found: os.stat_result
    ) -> None:
        if depth > _MOST_DEPTH:
            self._leave_out(path, f"it is more than {_MOST_DEPTH} directories deep")
            return
        here = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            try:
                os.mkdir(new_name, 0o700, dir_fd=target)
                made = True
            except FileExistsError:
                made = False
            there = os.open(new_name, _DIRECTORY, dir_fd=target)  # a link of that name is refused: ELOOP, ENOTDIR
            try:
                for each in sorted(os.listdir(here)):
                    self.entry(here, each, there, each, f"{path}/{each}" if path else each, depth + 1)
                if made:
                    self._own(there, found)
            finally:
                os.close(there)
        finally:
            os.close(here)

    def _file(self, source: int, name: str, target: int, new_name: str, found: os.stat_result) -> None:
        # Non-blocking: between the look and the open it may have become a FIFO.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        here = os.open(name, flags, dir_fd=source)
        temporary = f".{new_name[:200]}.{os.getpid()}.part"
        try:
            there = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
            )
            try:
                while data := os.read(here, 1 << 20):
                    _write(there, data)
                self._own(there, found)
            finally:
                os.close(there)
            os.rename(temporary, new_name, src_dir_fd=target, dst_dir_fd=target)
        except BaseException:  # also by ^C: no half of a file stays
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=target)
            raise
        finally:
            os.close(here)

    def _link(self, leads_to: str, target: int, new_name: str, path: str) -> None:
        """A link is copied as one; what it names must lie inside what is copied."""
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), leads_to))
        if not path or leads_to.startswith("/") or inside.split("/")[0] == "..":
            self._leave_out(path, f"the link leads outside, to {one_line(leads_to)}")
            return
        with suppress(FileNotFoundError):
            os.unlink(new_name, dir_fd=target)
        os.symlink(leads_to, new_name, dir_fd=target)
        if self.owner is not None:
            os.chown(new_name, *self.owner, dir_fd=target, follow_symlinks=False)

    def _own(self, descriptor: int, found: os.stat_result) -> None:
        if self.owner is not None:
            os.fchown(descriptor, *self.owner)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & 0o777)  # a set-uid program stays inside
        os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
