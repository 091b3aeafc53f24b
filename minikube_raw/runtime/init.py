"""The child that becomes a container's first process, or one exec'd beside it: join, build, drop, exec.

It is a fork of the keeper, so it runs our Python inside an image's file system: from rootfs.enter() (or setns) until exec
nothing is imported, looked up or loaded, and errors become one short message on a socket, never a traceback (those open
source files). The socket closes on exec: its end without a message is the keeper's sign that the program runs.
"""

from __future__ import annotations

import os
import stat

from minikube_raw.linux import fds, namespaces, paths, process, rlimits, signals, steps, terminals
from minikube_raw.linux.cgroups import manager

from . import podusers, privileges, recording, rootfs, users, wire
from .prepared import Prepared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    Spec = dict[str, Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CannotExecute(Exception):
    """The program cannot be run; the text is the one runc gives for it."""


class Job:
    """What a child becomes: the spec, its cgroup, standard streams (none: a terminal; -1: the null device), volumes, status socket.

    `null` is the null device; a first process finds its own.
    """

    __slots__ = ("cgroup", "null", "spec", "status", "streams", "volumes")

    def __init__(
        self,
        spec: Spec,
        cgroup: str,
        status: wire.Socket,
        streams: Sequence[int],
        *,
        volumes: Sequence[int] = (),
        null: int = -1,
    ) -> None:
        self.spec, self.cgroup, self.status, self.streams = spec, cgroup, status, tuple(streams)
        self.volumes, self.null = tuple(volumes), null


def run_container(status: wire.Socket, cgroup: str, usual: Spec | None, mount_point: str) -> NoReturn:
    """Joins the cgroup, waits to be told which container this is, builds its world, becomes its first process. Never returns.

    What `usual` says (spec.usual_spec) is made before that, with the help of a place to mount at.
    """

    def work() -> NoReturn:
        _leave_keeper([status.fileno()])
        inside = podusers.is_foreign()
        if not inside:
            join_keyring(cgroup)
        join_cgroup(cgroup)
        os.setsid()  # only now: where the scheduler groups by session, whoever is in no cgroup yet goes to the end of the queue
        prepared = Prepared(usual, mount_point) if usual and not inside else None
        message, received = wire.receive(status)
        spec, places = message["spec"], message["rootfs"]
        given = sum(index >= 0 for index in message["streams"])
        streams = [received[index] if index >= 0 else -1 for index in message["streams"]]
        job = Job(spec, cgroup, status, streams, volumes=received[given:])
        set_limits(spec["process"])
        devices = rootfs.host_devices() if spec["linux"].get("hostDevices") else []
        binds, opened = rootfs.sorted_volumes(spec, job.volumes, images_opened=inside)
        images = rootfs.open_images(spec, places["mountPoint"], opened)
        if inside:
            visible = rootfs.open_visible(devices)
            root = rootfs.enter_mount(job.volumes[-1], places["mountPoint"])
            podusers.become_root()
            join_keyring(cgroup)
        else:
            visible = {}
            if "lowers" in places:
                root = rootfs.enter(places["lowers"], places["upper"], places["work"], places["mountPoint"])
            else:
                root = rootfs.enter_mount(job.volumes[-1], places["mountPoint"])
        user = find_user(root, spec["process"]["user"])  # the image's, whatever is mounted over /etc
        if prepared is not None and prepared.fits(spec):
            prepared.attach(root)
            rootfs.attach_volumes(root, spec, binds, images)
            job.null = prepared.null
        else:
            if prepared is not None:
                prepared.discard()
            job.null = rootfs.populate(root, spec, binds, images, devices, visible)
        _exec(job, root, user)

    _become(work, status)


def run_exec(job: Job, *, user_namespace: bool = False) -> NoReturn:
    """Becomes a program in a running container, whose namespaces and cgroup we were born into (entering). Never returns."""

    def work() -> NoReturn:
        process.set_parent_death_signal(signals.SIGKILL)
        os.umask(0)
        os.setsid()
        if user_namespace:
            podusers.become_root()
        join_keyring(job.cgroup)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _exec(job, root, find_user(root, job.spec["process"]["user"]))

    _become(work, job.status)


def join_keyring(cgroup: str) -> None:
    """Joins the session keyring of the container with this cgroup, made by whoever comes first and named as runc names it."""
    process.join_new_session_keyring(f"_ses.{cgroup.rpartition('/')[2]}")


def join_cgroup(path: str) -> None:
    """Joins the cgroup in every hierarchy and takes it as the root of a cgroup namespace."""
    manager(path).attach(0)
    namespaces.unshare(namespaces.CLONE_NEWCGROUP)


def _leave_keeper(kept: Sequence[int]) -> None:
    """Lets go of everything that is the keeper's; until exec the child dies with it."""
    steps.start_recording()
    process.set_parent_death_signal(signals.SIGKILL)
    fds.close_all_but([0, 1, 2, *kept])
    os.umask(0)


def _become(work: Callable[[], NoReturn], status: wire.Socket) -> NoReturn:
    try:
        work()
    except CannotExecute as error:
        _report(status, "StartError", str(error))
    except users.UnknownUser as error:
        _report(status, "CreateContainerError", str(error))
    except wire.Closed:
        pass  # the keeper has gone, or never needed us
    except OSError as error:
        _report(status, "StartError", describe(error))
    except BaseException as error:  # whatever it is, it must not unwind into the keeper's loop
        _report(status, "StartError", f"{type(error).__name__}: {error}")
    finally:
        os._exit(128)


def _report(status: wire.Socket, reason: str, message: str) -> None:
    _send_last(status, {"error": message, "reason": reason})


def _send_last(status: wire.Socket, message: Spec) -> None:
    """Sends a message that ends the recording, then what was recorded, if that was done: the keeper can go on meanwhile."""
    recorded = steps.stop_recording()
    wire.send(status, {**message, "stepsFollow": bool(recorded)})
    if recorded:
        wire.send_bytes(status, recording.pack(recorded))


def describe(error: OSError) -> str:
    """Words an OSError as Go's PathError does: `mkdir /x: permission denied`."""
    text = error.strerror or str(error)
    call, separator, rest = text.partition(": ")
    text = call + separator + lower_first(rest) if separator else lower_first(text)
    return f"{text}: {error.filename}" if error.filename else text


def lower_first(text: str) -> str:
    """Go writes errno texts in small letters: "no such file or directory"."""
    return text[:1].lower() + text[1:]


def set_limits(wanted: Spec) -> None:
    """Sets the limits and the oom_score_adj of an OCI `process`; children have them too."""
    limits = {limit["type"]: (limit["soft"], limit["hard"]) for limit in wanted.get("rlimits", ())}
    rlimits.set_limits(limits)
    process.set_oom_score_adj(wanted.get("oomScoreAdj", 0))


def _exec(job: Job, root: int, user: users.User) -> NoReturn:
    wanted = job.spec["process"]
    environment = _environment(wanted["env"], user.home)
    _connect_streams(job, root, user.uid)
    _change_directory(root, wanted["cwd"])
    rootfs.finish(job.spec)
    os.close(root)
    os.umask(wanted.get("umask", 0o022))
    process.go_with_others()
    finish = privileges.drop(job.spec, user)
    program = _look_path(wanted["args"][0], environment.get("PATH", DEFAULT_PATH))
    signals.reset()
    process.set_parent_death_signal(0)
    _await_permission(job, user)
    finish()
    try:
        os.execve(program, wanted["args"], environment)
    except OSError as error:
        raise CannotExecute(f"exec {program}: {lower_first(error.strerror or '')}") from None


def find_user(root: int, wanted: Spec) -> users.User:
    """Returns who an OCI `user` is to the files below `root`. Raises users.UnknownUser."""
    passwd, group = users.read_in_root(root, "/etc/passwd"), users.read_in_root(root, "/etc/group")
    return users.resolve(
        wanted.get("username", ""),
        passwd,
        group,
        gid=wanted.get("gid"),
        supplemental=wanted.get("additionalGids", ()),
        strict=wanted.get("strict", False),
    )


def _environment(pairs: Sequence[str], home: str) -> dict[str, str]:
    environment = dict(pair.split("=", 1) for pair in pairs)
    environment.setdefault("HOME", home)
    return environment


def _connect_streams(job: Job, root: int, uid: int) -> None:
    """Puts the streams at 0, 1 and 2, owned by the container's user: else it could not open /dev/stdout again."""
    if job.spec["process"].get("terminal"):
        streams = [_open_terminal(job.status, root)] * 3
        if job.spec["root"]:  # a first process's; one that is exec'd finds /dev/console as it is
            rootfs.make_console(root, streams[0])
    else:
        streams = [fd if fd >= 0 else job.null for fd in job.streams]
    for fd in set(streams):
        if not stat.S_ISCHR(os.fstat(fd).st_mode) or job.spec["process"].get("terminal"):
            os.fchown(fd, uid, -1)
    for number, fd in enumerate(streams):
        fds.inheritable(fd, number)


def _open_terminal(status: wire.Socket, root: int) -> int:
    """Opens a terminal of the container's devpts, hands its master to the keeper and makes it ours."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW
    master, slave = terminals.open_pair(paths.open_in_root(root, "/dev/pts/ptmx", flags))
    wire.send(status, {"terminal": True}, [master])
    os.close(master)
    terminals.make_controlling(slave)
    return slave


def _change_directory(root: int, path: str) -> None:
    """Enters the working directory, made if it is missing, as runc does; by descriptor, since its name may be a link by then."""
    directory = paths.make_directories_in_root(root, path)
    os.fchdir(directory)
    os.close(directory)
    if not os.getcwd().startswith("/"):  # "(unreachable)/…": a directory outside the root (CVE-2024-21626)
        raise CannotExecute(f"current working directory is outside of container mount namespace root: {path}")


def _await_permission(job: Job, user: users.User) -> None:
    """Waits until the keeper has written down who we are; sends what was recorded meanwhile."""
    identity = {"uid": user.uid, "gid": user.gid, "supplemental_groups": user.groups}
    _send_last(job.status, {"ready": True, "user": identity})
    wire.receive(job.status)
    fds.close_on_exec_all_but([0, 1, 2])


def _look_path(name: str, search: str) -> str:
    """Finds the program as Go's exec.LookPath does, with its error texts."""
    if "/" in name:
        problem = _executable(name)
        if problem:
            raise CannotExecute(f'exec: "{name}": {problem}')
        return name
    for directory in search.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if not _executable(candidate):
            return candidate
    raise CannotExecute(f'exec: "{name}": executable file not found in $PATH')


def _executable(path: str) -> str:
    """Returns what hinders running a file, empty if nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"stat {path}: {lower_first(error.strerror or '')}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not os.access(path, os.X_OK, effective_ids=True) or not mode & 0o111:
        return "permission denied"
    return ""
