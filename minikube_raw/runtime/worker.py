"""A keeper's worker: a fork of it that makes one thing (the sandbox with its first container, a container, an exec) and ends.

Each line of Python that runs and each call by ctypes dirties pages that a process shared until then: making a sandbox costs
two megabytes. So a keeper does none of it. It forks, sleeps or serves, takes over what was made, and the pages go with the
worker. Containers are born as the keeper's children (CLONE_PARENT). A worker dies with its keeper; a keeper whose worker dies
over its work ends itself: for kubelet and launcher both are one keeper that was killed.
"""

from __future__ import annotations

import errno
import os
import select

from minikube_raw.linux import fds, files, namespaces, pidfd, process, proctitle, signals, steps

from . import executors, handover, podusers, recording, sandbox, starting, wire
from .child import Child
from .execs import Target
from .loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from .wire import Socket

    Request = dict[str, Any]

FIRST_SECONDS = 10.0  # how long the sandbox's worker waits for the first container, which is being prepared meanwhile


def run(control: Socket, kept: Iterable[int], work: Callable[[], None], keeper: int) -> NoReturn:
    """Does `work` in a process that the keeper has just forked and that keeps only these descriptors. Never returns."""
    status = 1
    try:
        steps.start_recording()
        process.set_parent_death_signal(signals.SIGKILL)
        if os.getppid() == keeper:
            fds.close_all_but([0, 1, 2, control.fileno(), *kept])
            work()
            status = 0
    except wire.Closed:
        pass  # a spare one whose launcher has gone
    except BaseException as error:  # a fork must not unwind into the keeper's loop
        report(f"worker {os.getpid()} of keeper {keeper}", error)
    finally:
        os._exit(status)


def report(who: str, error: BaseException) -> None:
    """Writes an unexpected error and where it happened to stderr, without the source lines that a traceback would open files for."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    os.write(2, f"{who}: {type(error).__name__}: {error} ({' > '.join(places)})\n".encode())


class Worker:
    """The pod as a process sees it that makes a part of it; the Pod of its children."""

    def __init__(self, control: Socket, request: Request, held: dict[str, int], launcher: Socket | None) -> None:
        self.control, self.request, self.held, self.launcher = control, request, held, launcher
        self.loop = Loop()
        self.spare: Child | None = None
        self.pids: dict[str, int] = {}  # of the containers that run, by id
        self.made: list[str] = []  # names of what was put into `held` here
        self.unreaped: list[int] = []  # children of the keeper that have ended, or are about to
        self._own_pidns = namespaces.open_namespace("pid_for_children")

    @property
    def user_namespace(self) -> int:
        """The pod's user namespace, -1 when that is the node's."""
        return self.held.get("ns/user", -1)

    @property
    def pause_pidns(self) -> int:
        """The PID namespace that the pod's containers share, -1 when they share none."""
        return self.held.get("ns/pid", -1)

    def join(self) -> None:
        """Joins the pod's namespaces: what is forked here is born in them."""
        sandbox.join_namespaces({kind: self.held[f"ns/{kind}"] for kind in sandbox.KINDS if f"ns/{kind}" in self.held})

    def hold(self, name: str, fd: int) -> None:
        """Lets keeper and launcher hold copies of a descriptor until it is released: it must not be closed when we end."""
        self.hold_all({name: fd})

    def hold_all(self, descriptors: dict[str, int]) -> None:
        """hold() of several by name: one packet instead of many that wake the launcher."""
        if descriptors:
            message = {"op": "hold", "sandbox": self.request["id"], "names": list(descriptors)}
            self._tell_launcher(message, list(descriptors.values()))
        for name, fd in descriptors.items():
            self.held[name] = os.dup(fd)
            self.made.append(name)

    def _tell_launcher(self, message: Request, descriptors: Any = ()) -> None:
        if self.launcher is not None:
            try:
                wire.send(self.launcher, message, descriptors)
            except OSError:  # it has died; the keeper hands everything to the next one
                self.launcher = None

    def fork(self, flags: int, cgroup: str, pid_namespace: int) -> tuple[int, int]:
        """Forks a child of the keeper into new namespaces and a cgroup; returns (pid, pidfd), or (0, -1) in it.

        It is a member of `pid_namespace` unless that is -1.
        """
        if self.user_namespace >= 0:
            pid, child, between = podusers.fork_inside(self.user_namespace, flags, cgroup, pid_namespace)
            self.unreaped.append(between)
            return pid, child
        flags |= namespaces.CLONE_PARENT
        if pid_namespace < 0:
            return sandbox.fork_into(cgroup, flags)
        namespaces.setns(pid_namespace, namespaces.CLONE_NEWPID)
        pid = -1
        try:
            pid, child = sandbox.fork_into(cgroup, flags)
        finally:
            if pid != 0:  # the child stays, and could not come back
                namespaces.setns(self._own_pidns, namespaces.CLONE_NEWPID)
        return pid, child

    def has_waiting(self, cgroup: str) -> bool:
        """Whether a child waits in a cgroup, which is therefore there."""
        return self.spare is not None and self.spare.cgroup == cgroup

    def take_child(self, cgroup: str, pid_target: str = "") -> Child:
        """Returns a child that waits to become a container: the one forked while the network was made, or a new one.

        With `pid_target`, a container of ours, it is a process of that one's PID namespace.
        """
        if pid_target:
            return self._child_beside(cgroup, pid_target)
        child = self.spare
        if child is None or not self.has_waiting(cgroup):
            return Child(self, cgroup)
        self.spare = None
        if not pidfd.has_ended(child.pidfd):
            return child
        self.unreaped.append(child.pid)  # somebody killed it while it waited
        child.close()
        return Child(self, cgroup)

    def dismiss_child(self) -> None:
        """Has the child that waits end, for a container that needs none."""
        child, self.spare = self.spare, None
        if child is not None:
            child.status.close()
            pidfd.has_ended(child.pidfd, FIRST_SECONDS)
            os.close(child.pidfd)
            self.unreaped.append(child.pid)

    def _child_beside(self, cgroup: str, target: str) -> Child:
        namespace = os.open(f"/proc/{self.pid_of(target)}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Child(self, cgroup, namespace)
        finally:
            os.close(namespace)

    def pid_of(self, container: str) -> int:
        """Returns the first process of a container of the pod. Raises ProcessLookupError."""
        if container not in self.pids:
            raise ProcessLookupError(errno.ESRCH, f"target container {container} does not run")
        return self.pids[container]

    # What the keeper is told.

    def trace(self, parts: bytes = b"") -> None:
        """Writes what was done here since this was called last into the pod's trace, and parts of others."""
        if (path := self.request.get("trace")) is not None:
            own = recording.part("keeper", os.getpid(), recording.pack(steps.take()))
            recording.append(path, own + parts)

    def tell(self, message: Request, descriptors: dict[str, int] | None = None) -> None:
        """Sends a message to the keeper, with what is held that it does not know of yet and descriptors under other names."""
        held = {f"held {name}": self.held[name] for name in self.made if name in self.held}
        self.made, unreaped, self.unreaped = [], self.unreaped, []
        handover.give(self.control, {**message, "unreaped": unreaped}, {**held, **(descriptors or {})})

    def start(self, request: Request, volumes: list[int]) -> Request:
        """Starts a container; returns what the keeper is to be told of it once its program runs or could not be run."""
        start = executors.of(request).start(self, request)
        try:
            start.begin(volumes)
            self.loop.run()
        except BrokenPipeError:
            start.failed(starting.KILLED, "StartError")
        except OSError as error:
            start.failed(wording(error), "StartError")
        self.trace(recording.part("child", start.pid, start.child_steps))
        return {"container": handover.summary(request, start.pid, start.started_at), "answer": start.answer}

    def execute(self, message: Request, container: Target) -> None:
        """Runs a process beside a container's first one, until it has ended. None of it is recorded: a pod may be probed for ever."""
        steps.stop_recording()

        def started(result: Request, descriptors: Any = ()) -> None:
            if "error" in result:
                self.loop.stop()
            self.tell({"answer": result}, {str(number): fd for number, fd in enumerate(descriptors)})

        def ended(code: int) -> None:
            self.tell({"exited": code})
            self.loop.stop()

        def hear() -> None:
            wire.receive(self.control)  # the one thing a keeper says; its end is ours
            process_beside.kill()

        process.go_first()  # somebody waits for it, and should not wait for pods that are being made
        try:
            process_beside = executors.of(container.request).execute(self, container, message, started, ended)
        except OSError as error:
            started({"error": wording(error), "reason": "RuntimeError"})
            return
        self.loop.watch(self.control.fileno(), hear)
        self.loop.run()


class First(Worker):
    """The worker that makes a sandbox, or takes over what an earlier keeper left of it."""

    def __init__(self, control: Socket) -> None:
        super().__init__(control, {}, {}, None)
        self._namespaces: dict[str, int] = {}
        self._not_enforced: list[str] = []
        self._adopted: list[Request] = []

    def prepare(self) -> None:
        """Makes the namespaces that nearly every pod has, before it is known which."""
        self._namespaces = sandbox.create_namespaces(sandbox.USUAL)
        process.set_link_up("lo")

    @property
    def network(self) -> int:
        """The network namespace that was prepared."""
        return self._namespaces["net"]

    def serve(self, request: Request, connection: Socket, launcher: str) -> None:
        """Makes (or takes over) the sandbox, answers on `connection`, starts the container asked for next, hands all over."""
        title = f"keeper {request['namespace']}/{request['name']}"
        foreign = bool(request.get("foreign")) and not request.get("adopt")
        self.tell({"title": title, "parent": foreign})
        if foreign:
            wire.receive(self.control)  # what an OCI runtime leaves behind is the keeper's from now on
        proctitle.set_title(title)
        self.request = request
        self._connect(launcher)
        try:
            if request.get("adopt"):
                self._adopt()
            else:
                self._create(connection)
        except OSError as error:
            self.trace()
            _answer(connection, {"id": 0, "error": wording(error)})
            self._vanish()
            raise
        listener = wire.listen(request["socket"])
        if not request.get("adopt"):
            made = {"pid": os.getppid(), "containers": {}, "not_enforced": self._not_enforced}
            if not _answer(connection, {"id": 0, "version": wire.VERSION, **made}):
                # whoever asked has died: nobody knows of this keeper, and the next kubelet will want one of its own
                self._vanish()
                return
            self._make_ready()
            self.trace()
        self._hand_over(connection, listener, *self._first_request(connection, listener))

    def _connect(self, launcher: str) -> None:
        """Connects; without a launcher the keeper hands over what is held when there is one."""
        try:
            self.launcher = wire.connect(launcher)
        except OSError:
            self.launcher = None

    def _first_request(self, connection: Socket, listener: Socket) -> tuple[Request, dict[str, int]]:
        """Waits for what comes after the sandbox; starts a container itself, leaves anything else to the keeper."""
        if self.request.get("adopt"):
            self.trace()
            return {"adopted": True}, {}
        poll = select.poll()
        ends = [self.held.get("pause", -1), -1 if self.spare is None else self.spare.pidfd]  # the keeper reaps
        for fd in (connection.fileno(), listener.fileno(), *(fd for fd in ends if fd >= 0)):
            poll.register(fd, select.POLLIN)
        if not any(fd == connection.fileno() for fd, _ in poll.poll(FIRST_SECONDS * 1000)):
            return {}, {}
        try:
            message, received = wire.receive(connection)
        except (wire.Closed, OSError):
            return {"client": "gone"}, {}
        if message["op"] == "start":
            started = self.start(message["container"], received)
            answer, started["answer"] = started["answer"], _outcome(started["answer"])
            _answer(connection, {"id": message["id"], **answer})  # before the keeper can say that it has ended
            return {"started": started}, {}
        return {"message": message}, {f"received {number}": fd for number, fd in enumerate(received)}

    def _hand_over(self, connection: Socket, listener: Socket, message: Request, received: dict[str, int]) -> None:
        kept = {key: value for key, value in self.request.items() if key not in ("adopt", "containers")}
        given = {"connection": connection.fileno(), "listener": listener.fileno(), **received}
        state: Request = {"sandbox": kept, "containers": self._adopted, "spare": None}
        if self.launcher is not None:
            given["launcher"] = self.launcher.fileno()
        if self.spare is not None:
            state["spare"] = {"cgroup": self.spare.cgroup, "pid": self.spare.pid}
            given |= {"spare status": self.spare.status.fileno(), "spare process": self.spare.pidfd}
        self.tell({**state, **message}, given)

    def _vanish(self) -> None:
        """Gives back what only this keeper knows of; the pod's cgroup may have become its successor's.

        One that took over gives nothing back: the containers live on, and the launcher holds their streams for the next.
        """
        if self.request.get("adopt"):
            return
        self._tell_launcher({"op": "release", "sandbox": self.request["id"]})

    def _create(self, connection: Socket) -> None:
        """Makes the sandbox, its network namespace first: CNI can begin."""
        made = self._namespaces
        if not made:
            made = self._create_namespaces()
            if "net" in made:
                _answer(connection, {"event": "network namespace"}, [made["net"]])
        self.hold_all({f"ns/{kind}": fd for kind, fd in made.items()})
        wire.close(made.values())
        sandbox.create_cgroup(self.request["cgroup"])
        self._not_enforced = sandbox.set_limits(self.request["cgroup"], self.request["limits"])
        if self.request["pid"] == sandbox.POD:
            self._start_pause()
        self._fork_first()
        sandbox.configure(self.request, loopback=not self._namespaces)

    def _start_pause(self) -> None:
        held = _held_of_pause(*sandbox.start_pause(self.request, self.fork))
        self.hold_all(held)
        wire.close(held.values())

    def _fork_first(self) -> None:
        """Forks the first container's child, which has most to do until it can be told what it becomes."""
        if not (cgroup := self.request["firstCgroup"]):
            return
        try:
            sandbox.create_cgroup(cgroup, all_devices=False)
            self.spare = Child(self, cgroup, usual=self.request.get("usual"))
        except OSError:
            pass  # whoever starts the container meets it again, and tells

    def _make_ready(self) -> None:
        """Makes what else the first container will need, while the network is still being attached and the image looked up."""
        cgroup, run_dir = self.request["firstCgroup"], self.request.get("firstRunDir")
        if not cgroup or not run_dir:
            return
        try:
            files.make_directories(run_dir)
            starting.make_outputs(self, os.path.basename(cgroup), run_dir)
        except OSError:
            pass  # likewise

    def _create_namespaces(self) -> dict[str, int]:
        """Makes the namespaces of a pod that no spare keeper is made for; a user namespace before all others."""
        first_id = self.request.get("firstUserId")
        if not first_id:
            return sandbox.create_namespaces(self.request)
        made = podusers.create(first_id, sandbox.own_kinds(self.request))
        namespaces.unshare(namespaces.CLONE_NEWNS)
        return {**made, "mnt": namespaces.open_namespace("mnt")}

    def _adopt(self) -> None:
        """Finds or makes again what an earlier keeper had: namespaces, the streams of its containers, their processes."""
        held = self._take_held()
        entries = self.request["containers"]
        found = {kind: held.pop(f"ns/{kind}") for kind in sandbox.KINDS if f"ns/{kind}" in held}
        for entry in entries:
            found = found or self._namespaces_of(entry["identity"])
        if not sandbox.own_kinds(self.request).keys() - {"mnt"} <= found.keys():
            # what is started here would be in the node's
            raise OSError(errno.ESRCH, "the pod's namespaces have ended: nobody was left who held them")
        if self.request["pid"] == sandbox.POD and "ns/pid" not in held:
            held |= _held_of_pause(*sandbox.find_pause(self.request))
        sandbox.join_namespaces(found)
        if "mnt" not in found:
            sandbox.make_shared_memory(self.request)
            found["mnt"] = namespaces.open_namespace("mnt")
        for kind, fd in found.items():
            self.hold(f"ns/{kind}", fd)
        for name, fd in held.items():
            self.hold(name, fd)
        wire.close([*found.values(), *held.values()])
        for entry in entries:
            start = executors.of(entry["request"]).start(self, entry["request"])
            self._adopted.append(start.adopt(entry["identity"]))

    def _namespaces_of(self, identity: Request) -> dict[str, int]:
        """Opens the pod's namespaces as its container's first process has them, none if that has ended; mnt is its own."""
        kinds = [*sandbox.own_kinds(self.request), *(["user"] if self.request.get("firstUserId") else [])]
        found: dict[str, int] = {}
        try:
            process = pidfd.open_process(identity["pid"], identity["start_time"], identity["boot_id"])
            found = {kind: namespaces.open_namespace(kind, identity["pid"]) for kind in kinds if kind != "mnt"}
            ended = pidfd.has_ended(process)  # else nobody else can have had its number meanwhile
            os.close(process)
        except OSError:
            ended = True
        if ended:
            wire.close(found.values())
        return {} if ended else found

    def _take_held(self) -> dict[str, int]:
        """Asks the launcher for the descriptors it holds for this sandbox; one that dies over it holds nothing."""
        if self.launcher is None:
            return {}
        held: dict[str, int] = {}
        try:
            wire.send(self.launcher, {"op": "take", "sandbox": self.request["id"]})
            while True:
                message, received = wire.receive(self.launcher)
                held.update(zip(message["names"], received, strict=True))
                if not message["more"]:
                    return held
        except OSError:
            self.launcher = None
            wire.close(held.values())
            return {}


def _answer(connection: Socket, message: Request, descriptors: Any = ()) -> bool:
    """Sends without ever waiting; False when whoever asked has gone or does not read."""
    try:
        wire.send(connection, message, descriptors, wait=False)
    except OSError:
        return False
    return True


def _outcome(answer: Request) -> Request:
    """What the keeper has to know of an answer to a start that was given already."""
    return {key: answer[key] for key in ("error", "reason") if key in answer}


def _held_of_pause(pid: int, process: int) -> dict[str, int]:
    """What is held of a pod whose containers share their processes."""
    return {"pause": process, "ns/pid": namespaces.open_namespace("pid", pid)}


def wording(error: OSError) -> str:
    """What is said of an error to the kubelet."""
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text
