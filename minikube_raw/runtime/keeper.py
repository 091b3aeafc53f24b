"""The keeper of one pod: parent of its containers and exec'd processes, holder of its namespaces, logs and terminals.

Forked by the launcher, it lives as long as the sandbox and talks to whichever kubelet connects to its socket; neither
kubelet nor launcher needs to be alive meanwhile. Asked to `adopt`, it takes over what a keeper that was killed left behind.
All it ever uses was imported before the fork.
"""

from __future__ import annotations

import errno
import os
import sys

from minikube_raw.linux import fds, namespaces, pidfd, process, proctitle, signals, steps
from minikube_raw.linux.cgroups import manager

from . import podusers, sandbox, wire
from .child import Child
from .container import Container
from .copying import STAGING_SIZE
from .execs import Exec
from .loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .wire import Socket

    Request = dict[str, Any]

_RECONNECT_SECONDS = 0.2


def main(request: Request, connection: Socket, launcher: str) -> NoReturn:
    """Runs a keeper in a process just forked, with `connection` to the kubelet that asked for it. Never returns."""

    def work() -> None:
        _settle(connection, f"keeper {request['namespace']}/{request['name']}")
        Keeper(launcher).serve(request, connection)

    _run(work)


def main_spare(orders: Socket, launcher: str) -> NoReturn:
    """Runs a keeper that is made ahead of time: it has its namespaces and waits on `orders` for a sandbox. Never returns."""

    def work() -> None:
        _settle(orders, "keeper spare")
        keeper = Keeper(launcher)
        keeper.prepare()
        message, received = wire.receive(orders)
        orders.close()
        request: Request = message["sandbox"]
        proctitle.set_title(f"keeper {request['namespace']}/{request['name']}")
        keeper.serve(request, wire.adopt(received[0]))

    _run(work)


def _run(work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except wire.Closed:
        pass  # a spare one whose launcher has gone
    except BaseException as error:  # a fork must not unwind into the launcher's loop
        report(f"keeper {os.getpid()}", error)
    finally:
        os._exit(status)


def _settle(kept: Socket, title: str) -> None:
    """Lets go of everything that is the launcher's and becomes a process of its own, whose steps are recorded."""
    steps.start_recording()
    fds.close_all_but([0, 1, 2, kept.fileno()])
    signals.reset()
    signals.ignore(signals.SIGPIPE)
    process.set_dumpable(False)
    os.setsid()
    proctitle.set_title(title)


def report(who: str, error: BaseException) -> None:
    """Writes an unexpected error and where it happened to stderr, without the source lines that a traceback would open files for."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    sys.stderr.write(f"{who}: {type(error).__name__}: {error} ({' > '.join(places)})\n")
    sys.stderr.flush()


class Keeper:
    """The pod as its keeper sees it; the Pod that containers ask for things."""

    def __init__(self, launcher: str) -> None:
        self.request: Request = {}
        self.loop = Loop()
        self.pause_pidns = -1
        self.user_namespace = -1
        self.scratch = os.pipe2(os.O_CLOEXEC)
        fds.set_pipe_size(self.scratch[1], STAGING_SIZE)
        self._made: dict[str, int] = {}
        self._own_pidns = namespaces.open_namespace("pid_for_children")
        self._containers: dict[str, Container] = {}
        self._clients: dict[int, Socket] = {}
        self._held: dict[str, int] = {}  # what the launcher holds for us too, in case it has to be told again
        self._launcher_path = launcher
        self._launcher: Socket | None = None
        self._execs: dict[int, Exec] = {}
        self._last_exec = 0
        self._not_enforced: list[str] = []
        self._spare_child: Child | None = None

    def prepare(self) -> None:
        """Makes the namespaces that nearly every pod has, before it is known which."""
        self._made = sandbox.create_namespaces(sandbox.USUAL)

    def serve(self, request: Request, connection: Socket) -> None:
        """Makes (or takes over) the sandbox, answers on `connection`, and serves clients until told to quit."""
        self.request = request
        try:
            if request.get("adopt"):
                self._connect_launcher()
                self._adopt()
            else:
                self._create(connection)
        except OSError as error:
            self._send(connection, {"id": 0, "error": _wording(error), "steps": [_recorded()]})
            self._vanish()
            raise
        listener = wire.listen(request["socket"])
        self.loop.watch(listener.fileno(), lambda: self._accept(listener))
        self._serve_client(connection)
        made = {"not_enforced": self._not_enforced, "steps": [_recorded()]}
        if self._send(connection, {"id": 0, **self._hello(), **made}):
            self.loop.run()
        else:  # whoever asked has died: nobody knows of this keeper, and the next kubelet will want one of its own
            self._vanish()

    def _vanish(self) -> None:
        """Gives back what only this keeper knows of; the pod's own cgroup may have become its successor's.

        One that took over gives nothing back: the containers live on, and the launcher holds their streams for the next.
        """
        if self.request.get("adopt"):
            return
        self._tell_launcher({"op": "release", "sandbox": self.request["id"]})
        if self._spare_child is not None:
            pidfd.send_signal(self._spare_child.pidfd, signals.SIGKILL)
            pidfd.reap(self._spare_child.pidfd)
            manager(self._spare_child.cgroup).remove()

    def _create(self, connection: Socket) -> None:
        made = self._made or self._create_namespaces()
        if "net" in made:
            self._send(connection, {"event": "network namespace"}, [made["net"]])
        self._connect_launcher()
        for kind, fd in made.items():
            self.hold(f"ns/{kind}", fd)
        wire.close(made.values())
        sandbox.configure(self.request)
        self._not_enforced = sandbox.create_cgroup(self.request["cgroup"], self.request["limits"])
        if self.request["pid"] == sandbox.POD:
            pid, pidfd = sandbox.start_pause(self.request, self.fork)
            self.pause_pidns = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            self.hold("pause", pidfd)
            self.hold("ns/pid", self.pause_pidns)
            os.close(pidfd)
        if self.request["firstCgroup"]:
            manager(self.request["firstCgroup"]).create()
            self._spare_child = Child(self, self.request["firstCgroup"])

    def _create_namespaces(self) -> dict[str, int]:
        """Makes the namespaces of a pod that no spare keeper is made for; a user namespace before all others."""
        first_id = self.request.get("firstUserId")
        if not first_id:
            return sandbox.create_namespaces(self.request)
        made = podusers.create(first_id, sandbox.own_kinds(self.request))
        self.user_namespace = os.dup(made["user"])
        namespaces.unshare(namespaces.CLONE_NEWNS)
        return {**made, "mnt": namespaces.open_namespace("mnt")}

    def _adopt(self) -> None:
        """Joins the namespaces an earlier keeper made and takes over its containers."""
        held = self._take_held()
        found = {kind: held[f"ns/{kind}"] for kind in sandbox.KINDS if f"ns/{kind}" in held}
        for entry in self.request["containers"]:
            if not found:
                found = _namespaces_of(entry["identity"]["pid"], sandbox.own_kinds(self.request))
        sandbox.join_namespaces(found)
        if "mnt" not in found:
            sandbox.make_shared_memory(self.request)
            found["mnt"] = namespaces.open_namespace("mnt")
        for kind, fd in found.items():
            self.hold(f"ns/{kind}", fd)
        self.pause_pidns = held.get("ns/pid", -1)
        self._adopt_user_namespace(held)
        for entry in self.request["containers"]:
            container = Container(self, entry["request"])
            self._containers[container.id] = container
            prefix = f"{container.id}/"
            container.adopt(
                entry["identity"], {name[len(prefix) :]: fd for name, fd in held.items() if name.startswith(prefix)}
            )

    def _adopt_user_namespace(self, held: dict[str, int]) -> None:
        if self.request.get("firstUserId"):
            entries = self.request["containers"]
            self.user_namespace = held.get("ns/user", -1)
            if self.user_namespace < 0 and entries:
                self.user_namespace = namespaces.open_namespace("user", entries[0]["identity"]["pid"])
            self.hold("ns/user", self.user_namespace)

    # What containers ask of their pod.

    def hold(self, name: str, fd: int) -> None:
        """Lets the launcher hold a copy of a descriptor until release(): it must not be closed when this keeper dies."""
        self._tell_launcher({"op": "hold", "sandbox": self.request["id"], "name": name}, [fd])
        self._held[name] = os.dup(fd)

    def release(self, name: str) -> None:
        """Gives up what was held under `name` or below it."""
        for held in [key for key in self._held if key == name or key.startswith(f"{name}/")]:
            os.close(self._held.pop(held))
        self._tell_launcher({"op": "release", "sandbox": self.request["id"], "name": name})

    def fork(self, flags: int, cgroup: str, pid_namespace: int) -> tuple[int, int]:
        """Forks into new namespaces and a cgroup, as a member of `pid_namespace` unless that is -1; returns (pid, pidfd)."""
        if self.user_namespace >= 0 and flags:
            return podusers.fork_inside(self.user_namespace, flags, cgroup, pid_namespace)
        if pid_namespace < 0:
            return sandbox.fork_into(cgroup, flags)
        namespaces.setns(pid_namespace, namespaces.CLONE_NEWPID)
        pid = -1
        try:
            pid, pidfd = sandbox.fork_into(cgroup, flags)
        finally:
            if pid != 0:  # the child stays, and could not come back
                namespaces.setns(self._own_pidns, namespaces.CLONE_NEWPID)
        return pid, pidfd

    def take_child(self, cgroup: str, pid_target: str = "") -> Child:
        """Returns a child that waits to become a container: the one forked while the network was made, or a new one.

        With `pid_target`, a container of ours, it is a process of that one's PID namespace.
        """
        if pid_target:
            return self._child_beside(cgroup, pid_target)
        child = self._spare_child
        if child is None or child.cgroup != cgroup:
            return Child(self, cgroup)
        self._spare_child = None
        return Child(self, cgroup) if child.has_died() else child

    def _child_beside(self, cgroup: str, target: str) -> Child:
        known = self._containers.get(target)
        if known is None or known.exit is not None:
            raise ProcessLookupError(errno.ESRCH, f"target container {target} does not run")
        namespace = os.open(f"/proc/{known.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Child(self, cgroup, namespace)
        finally:
            os.close(namespace)

    def ended(self, container: Container) -> None:
        """Tells every client that a container has ended; its record is on the disk by now."""
        for client in list(self._clients.values()):
            self._send(client, {"event": "exited", "container": container.id, "exit": container.exit})

    # Clients.

    def _accept(self, listener: Socket) -> None:
        connection = wire.accept(listener)
        if connection is not None:
            self._serve_client(connection)

    def _serve_client(self, connection: Socket) -> None:
        self._clients[connection.fileno()] = connection
        self.loop.watch(connection.fileno(), lambda: self._hear(connection))

    def _drop_client(self, connection: Socket) -> None:
        if self._clients.pop(connection.fileno(), None) is not None:
            self.loop.forget(connection.fileno())
            connection.close()

    def _send(self, connection: Socket, message: Request, descriptors: Any = ()) -> bool:
        """Sends without ever waiting: a kubelet that does not read is dropped (False), connects again and asks."""
        connection.setblocking(False)
        try:
            wire.send(connection, message, descriptors)
        except OSError:
            self._drop_client(connection)
            return False
        else:
            return True
        finally:
            if connection.fileno() >= 0:
                connection.setblocking(True)

    def _hear(self, connection: Socket) -> None:
        try:
            message, received = wire.receive(connection)
        except (wire.Closed, OSError):
            self._drop_client(connection)
            return

        def answer(result: Request, descriptors: Any = ()) -> None:
            result["steps"] = [_recorded(), *result.get("steps", ())]
            self._send(connection, {"id": message["id"], **result}, descriptors)

        try:
            self._dispatch(message, received, answer, connection)
        except OSError as error:
            answer({"error": _wording(error), "reason": "RuntimeError"})

    def _dispatch(self, message: Request, received: list[int], answer: Any, connection: Socket) -> None:
        operation = message["op"]
        if operation == "start":
            self._start(message["container"], received, answer)
        elif operation == "exec":
            self._exec(message, answer, connection)
        elif operation == "kill exec":
            if message["exec"] in self._execs:
                self._execs[message["exec"]].kill()
            answer({})
        elif operation == "hello":
            answer(self._hello())
        elif operation == "forget":
            container = self._containers.pop(message["container"], None)
            if container is not None and container.exit is not None:
                container.forget()
            answer({})
        elif operation == "quit":
            answer({})
            self.loop.stop()
        else:
            self._container_operation(operation, message, answer)

    def _container_operation(self, operation: str, message: Request, answer: Any) -> None:
        container = self._containers.get(message["container"])
        if container is None or container.exit is not None:
            answer({"error": "the container is not running", "reason": "NotRunning"})
        elif operation == "attach":
            ends = container.attach()
            answer({"terminal": container.tty, "stdin": container.stdin >= 0}, ends)
            wire.close(ends)
        elif operation == "resize":
            container.resize(message["width"], message["height"])
            answer({})
        elif operation == "reopen_log":
            container.log.reopen()
            answer({})
        else:
            answer({"error": f"this keeper does not know {operation}", "reason": "Unimplemented"})

    def _hello(self) -> Request:
        """Says which protocol this keeper speaks and what it knows of its containers."""
        containers = {
            container.id: {"pid": container.pid, "started_at": container.started_at, "exit": container.exit}
            for container in self._containers.values()
        }
        return {"version": wire.VERSION, "pid": os.getpid(), "containers": containers}

    def _start(self, request: Request, volumes: list[int], answer: Any) -> None:
        container = Container(self, request)
        self._containers[container.id] = container
        try:
            container.start(volumes, answer)
        except OSError as error:
            container.finish(128, error=_wording(error), reason="StartError")
            answer({"error": _wording(error), "reason": "StartError"})

    def _exec(self, message: Request, answer: Any, connection: Socket) -> None:
        container = self._containers.get(message["container"])
        if container is None or container.exit is not None or not container.started_at:
            answer({"error": "the container is not running", "reason": "NotRunning"})
            return
        self._last_exec += 1
        number = self._last_exec

        def started(result: Request, descriptors: Any = ()) -> None:
            if "error" in result:
                del self._execs[number]
            answer({"exec": number, **result}, descriptors)

        def ended(code: int) -> None:
            del self._execs[number]
            self._send(connection, {"event": "exec exited", "exec": number, "exit_code": code})

        self._execs[number] = Exec(self, container, message, started, ended)

    # The launcher.

    def _connect_launcher(self) -> None:
        """Connects, and when the launcher was replaced hands everything over again."""
        try:
            self._launcher = wire.connect(self._launcher_path)
        except OSError:
            self.loop.call_later(_RECONNECT_SECONDS, self._connect_launcher)
            return
        self.loop.watch(self._launcher.fileno(), self._launcher_gone)
        for name, fd in self._held.items():
            self._tell_launcher({"op": "hold", "sandbox": self.request["id"], "name": name}, [fd])

    def _launcher_gone(self) -> None:
        if self._launcher is not None:
            self.loop.forget(self._launcher.fileno())
            self._launcher.close()
            self._launcher = None
        self._connect_launcher()

    def _tell_launcher(self, message: Request, descriptors: Any = ()) -> None:
        if self._launcher is not None:
            try:
                wire.send(self._launcher, message, descriptors)
            except OSError:
                self._launcher_gone()

    def exit_code_of_orphan(self, pid: int) -> int | None:
        """Asks the launcher, which inherits the children of a keeper that dies; None if it does not know (any more)."""
        if self._launcher is None:
            return None
        try:
            wire.send(self._launcher, {"op": "exit code", "pid": pid})
            message, _ = wire.receive(self._launcher)
        except OSError:  # it has just died
            self._launcher_gone()
            return None
        code: int | None = message["exit_code"]
        return code

    def _take_held(self) -> dict[str, int]:
        """Asks the launcher for the descriptors it holds for this sandbox."""
        if self._launcher is None:
            return {}
        held: dict[str, int] = {}
        wire.send(self._launcher, {"op": "take", "sandbox": self.request["id"]})
        while True:
            message, received = wire.receive(self._launcher)
            held.update(zip(message["names"], received, strict=True))
            if not message["more"]:
                return held


def _recorded() -> str:
    """What this keeper has done since it was asked last, for the pod's trace."""
    return wire.recorded("keeper", os.getpid(), wire.text(steps.take()))


def _namespaces_of(pid: int, kinds: dict[str, int]) -> dict[str, int]:
    """Opens the namespaces of a running container; its mount namespace is its own and not the pod's."""
    return {kind: namespaces.open_namespace(kind, pid) for kind in kinds if kind != "mnt"}


def _wording(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text
