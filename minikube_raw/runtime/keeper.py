"""The keeper of one pod: parent of its containers, holder of its namespaces, logs and terminals.

Forked by the launcher, it lives as long as the sandbox and talks to whichever kubelet connects to its socket; neither
kubelet nor launcher needs to be alive meanwhile. What is made, its workers make (worker.py): it shares nearly all its memory
with the launcher for as long as it runs little Python and calls nothing by ctypes. Asked to `adopt`, it takes over what a
keeper that was killed left behind. All it ever uses was imported before the fork.
"""

from __future__ import annotations

import os

from minikube_raw.linux import fds, pidfd, process, proctitle

from . import handover, sandbox, wire, worker
from .child import Child
from .container import Container
from .copying import STAGING_SIZE
from .execs import Target
from .loop import Loop
from .worker import First, Worker, report, wording

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from .wire import Socket

    Request = dict[str, Any]
    Descriptors = dict[str, int]

_RECONNECT_SECONDS = 0.2
_KILLED = 137
_LAST_SECONDS = 0.5  # from the first end in a PID namespace that ends to the last, unless one resists
_STRANGER_SECONDS = 0.5  # what an OCI runtime has beside a container ends right after it


def main(request: Request, connection: Socket, launcher: str) -> NoReturn:
    """Runs a keeper in a process just forked, with `connection` to the kubelet that asked for it. Never returns."""

    def make(first: First) -> None:
        first.serve(request, connection, launcher)

    _run(connection, launcher, make)


def main_spare(orders: Socket, launcher: str) -> NoReturn:
    """Runs a keeper that is made ahead of time: its worker has the namespaces and waits on `orders`. Never returns."""

    def make(first: First) -> None:
        first.prepare()
        wire.send(orders, {"ready": True}, [first.network])
        message, received = wire.receive(orders)
        orders.close()
        first.serve(message["sandbox"], wire.adopt(received[0]), launcher)

    _run(orders, launcher, make)


def _run(given: Socket, launcher: str, make: Callable[[First], None]) -> NoReturn:
    """Forks the first worker, to which `given` belongs, sleeps until it hands over the sandbox, and keeps that."""
    status = 1
    try:
        fds.close_all_but([0, 1, 2, given.fileno()])
        os.setsid()
        proctitle.set_title("keeper spare")
        control, theirs = wire.pair()
        keeper = os.getpid()
        if (first := os.fork()) == 0:
            worker.run(theirs, [given.fileno()], lambda: make(First(theirs)), keeper)
        theirs.close()
        given.close()
        while True:
            message, descriptors = handover.take(control)
            if "title" not in message:
                break
            proctitle.set_title(message["title"])
            if message["parent"]:
                process.become_subreaper()
                wire.send(control, {})
        Keeper(launcher).serve(message, descriptors, control, first)
        status = 0
    except wire.Closed:
        pass  # the worker has ended, and said why; or a spare one whose launcher has gone
    except BaseException as error:  # a fork must not unwind into the launcher's loop
        report(f"keeper {os.getpid()}", error)
    finally:
        os._exit(status)


class Keeper:
    """The pod as its keeper sees it; the Pod that containers ask for things."""

    def __init__(self, launcher: str) -> None:
        self.request: Request = {}
        self.loop = Loop()
        self.scratch = os.pipe2(os.O_CLOEXEC)
        fds.set_pipe_size(self.scratch[1], STAGING_SIZE)
        self._containers: dict[str, Container] = {}
        self._starting: set[str] = set()
        self._clients: dict[int, Socket] = {}
        self._held: Descriptors = {}  # what the launcher holds for us too, in case it has to be told again
        self._launcher_path = launcher
        self._launcher: Socket | None = None
        self._execs: dict[int, Socket] = {}  # number → its worker's control
        self._last_exec = 0
        self._workers: set[int] = set()
        self._over = False  # it is told that the shared PID namespace has ended
        self._spare: tuple[str, int, int, int] | None = None  # a child that waits: cgroup, pid, pidfd, status

    def serve(self, message: Request, given: Descriptors, control: Socket, first: int) -> None:
        """Takes over a sandbox from the worker that made it, and serves clients until told to quit."""
        self.request = message["sandbox"]
        listener, connection = wire.adopt(given.pop("listener")), wire.adopt(given.pop("connection"))
        if (spare := message["spare"]) is not None:
            self._spare = (spare["cgroup"], spare["pid"], given.pop("spare process"), given.pop("spare status"))
            self.loop.watch(self._spare[2], self._spare_ended)
        launcher = given.pop("launcher", -1)
        received = [given.pop(name) for name in list(given) if name.startswith("received ")]
        self._take(message, given)
        self._connect_launcher(launcher)
        if "pause" in self._held:
            self.loop.watch(self._held["pause"], self._pause_ended)
        for known in message["containers"]:
            self._know(known).take(self._held)
        self.loop.watch(listener.fileno(), lambda: self._accept(listener))
        self._serve_client(connection)
        self._workers.add(first)
        self.loop.watch(control.fileno(), lambda: self._dismiss(control, first))
        if "adopted" in message:
            if not self._send(connection, {"id": 0, **self._hello(), "not_enforced": []}):
                return
        elif "started" in message:
            if self.request.get("foreign"):
                process.become_subreaper(False)
            self._started(message["started"], lambda _result: None)  # the worker has answered
        elif "message" in message:
            self._obey(connection, message["message"], received)
        elif "client" in message:
            self._drop_client(connection)
        self.loop.run()

    # What containers ask of their pod.

    def release(self, name: str) -> None:
        """Gives up what was held under `name` or below it."""
        for held in [key for key in self._held if key == name or key.startswith(f"{name}/")]:
            os.close(self._held.pop(held))
        self._tell_launcher({"op": "release", "sandbox": self.request["id"], "name": name})

    def ended(self, container: Container) -> None:
        """Tells every client that a container has ended; its record is on the disk by now."""
        if "runtime" in container.request:
            self.loop.call_later(_STRANGER_SECONDS, self._reap_strangers)
        if not self._over and self._pause_is_over():
            self.loop.call_later(_LAST_SECONDS, self._tell_of_pause)  # if that does not come to its end before
            return
        for client in list(self._clients.values()):
            self._send(client, {"event": "exited", "container": container.id, "exit": container.exit})

    # What else may end.

    def _spare_ended(self) -> None:
        """Somebody killed the child that waits. Unreaped, it would keep PID 1 of a shared PID namespace from ending."""
        assert self._spare is not None
        descriptors, self._spare = self._spare[2:], None
        self._reap(descriptors[0])
        wire.close(descriptors)

    def _pause_ended(self) -> None:
        """The pod's shared PID namespace has ended, and before it, which the kernel sees to, all who were in it."""
        self._reap(self._held["pause"])
        self._tell_of_pause()

    def _pause_is_over(self) -> bool:
        return "pause" in self._held and sandbox.pause_is_over(self._held["pause"])

    def _tell_of_pause(self) -> None:
        """Tells it with all ends at once: who hears of one before would start that container again, in vain."""
        if self._over:
            return
        self._over = True
        for client in list(self._clients.values()):
            self._send(client, {"event": "pause ended", **self._hello()})

    def _reap(self, process: int) -> None:
        self.loop.forget(process)
        try:
            pidfd.reap(process)
        except ChildProcessError:
            pass  # an earlier keeper's, or reaped with the strangers

    # Workers.

    def _employ(
        self, kept: Iterable[int], work: Callable[[Worker], None], hear: Callable[[Request, Descriptors], None]
    ) -> tuple[Socket, int]:
        """Forks a worker in the pod's namespaces, which keeps what is held and these descriptors; `hear` gets what it says."""
        control, theirs = wire.pair()
        keeper, launcher = os.getpid(), self._launcher
        if (pid := os.fork()) == 0:
            keep = [*self._held.values(), *kept]
            if self._launcher is not None:
                keep.append(self._launcher.fileno())

            def begin() -> None:
                made = Worker(theirs, self.request, self._held, self._launcher)
                made.pids = {each.id: each.pid for each in self._containers.values() if each.exit is None}
                made.join()
                work(made)

            worker.run(theirs, keep, begin, keeper)
        theirs.close()
        self._workers.add(pid)

        def listen() -> None:
            try:
                message, descriptors = handover.take(control)
            except wire.Closed:
                self._dismiss(control, pid)
                hear({}, {})
                return
            self._take(message, descriptors, told=launcher is self._launcher)  # else to one that has died since
            hear(message, descriptors)

        self.loop.watch(control.fileno(), listen)
        return control, pid

    def _dismiss(self, control: Socket, pid: int) -> None:
        """A worker has ended."""
        self.loop.forget(control.fileno())
        control.close()
        os.waitpid(pid, 0)
        self._workers.discard(pid)

    def _take(self, message: Request, descriptors: Descriptors, *, told: bool = True) -> None:
        """Takes what a worker holds since it was forked, which the launcher may not have been told, and reaps what it could not."""
        for name in [name for name in descriptors if name.startswith("held ")]:
            held = name.removeprefix("held ")
            if held in self._held:
                # of a start that a crash interrupted: its writer of stdin would keep that from ending
                os.close(self._held[held])
            self._held[held] = descriptors.pop(name)
            if not told:
                self._tell_launcher({"op": "hold", "sandbox": self.request["id"], "name": held}, [self._held[held]])
        for pid in message["unreaped"]:
            os.waitpid(pid, 0)

    def _start(self, request: Request, volumes: list[int], answer: Any) -> None:
        """Has a worker start a container. A worker that dies over it leaves nobody who knows what runs, so we die too."""
        spare, self._spare = self._spare, None
        if spare is not None:
            self.loop.forget(spare[2])
        if "runtime" in request:
            process.become_subreaper()  # what an OCI runtime leaves behind is ours then

        def work(made: Worker) -> None:
            process.go_with_others()  # while something is executed its keeper does not
            if spare is not None:
                made.spare = Child.again(*spare)
            started = made.start(request, volumes)
            made.dismiss_child()  # one that waited for a container that never came
            made.tell(started)

        def hear(message: Request, _descriptors: Descriptors) -> None:
            if message:
                self._starting.discard(request["id"])
                self._started(message, answer)
                if "runtime" in request and not self._starting:
                    process.become_subreaper(False)
            elif request["id"] in self._starting:
                raise RuntimeError(f"the worker that started container {request['id']} was killed")

        self._starting.add(request["id"])
        waiting = spare[2:] if spare is not None else ()
        self._employ([*volumes, *waiting], work, hear)
        wire.close([*volumes, *waiting])

    def _started(self, message: Request, answer: Any) -> None:
        """A container's program runs, or does not; it is ours from now on."""
        known, result = message["container"], message["answer"]
        try:
            container = self._know(known)
        except OSError as error:  # its log cannot be opened, which is why it was not started either
            answer({**result, "error": wording(error), "reason": "RuntimeError"})
            return
        if "error" in result:
            container.fail(self._held, result["error"], result["reason"])
        else:
            container.take(self._held)
        answer(result)

    def _reap_strangers(self) -> None:
        """Reaps what an OCI runtime left to us beside containers (a gofer), and orphans of the moment of a start."""
        if self._starting:
            return  # what runs already is not known yet
        ours = {each.pid for each in self._containers.values() if each.exit is None} | self._workers
        for pid in process.children():
            if pid not in ours:
                os.waitpid(pid, os.WNOHANG)

    def _know(self, known: Request) -> Container:
        container = self._containers[known["id"]] = Container(self, known)
        return container

    def _exec(self, message: Request, answer: Any, connection: Socket) -> None:
        container = self._containers.get(message["container"])
        if container is None or container.exit is not None:
            answer({"error": "the container is not running", "reason": "NotRunning"})
            return
        self._last_exec += 1
        number = self._last_exec
        runs = False

        def work(made: Worker) -> None:
            made.execute(message, Target(handover.read_request(container.run_dir), container.pid, container.pidfd))

        def hear(message: Request, descriptors: Descriptors) -> None:
            nonlocal runs
            if "answer" in message:
                runs = "error" not in message["answer"]
                answer({"exec": number, **message["answer"]}, list(descriptors.values()))
                wire.close(descriptors.values())
                return
            if self._execs.pop(number, None) is None:
                return  # the worker ends after what it had to say
            if not self._execs:
                process.go_with_others()
            if runs:
                self._send(
                    connection, {"event": "exec exited", "exec": number, "exit_code": message.get("exited", _KILLED)}
                )
            else:
                answer({"error": "the worker was killed", "reason": "RuntimeError"})

        process.go_first()  # and so does its worker: somebody waits for them, and should not wait for pods that are being made
        self._execs[number], _ = self._employ([container.pidfd], work, hear)

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
        try:
            wire.send(connection, message, descriptors, wait=False)
        except OSError:
            self._drop_client(connection)
            return False
        return True

    def _hear(self, connection: Socket) -> None:
        try:
            message, received = wire.receive(connection)
        except (wire.Closed, OSError):
            self._drop_client(connection)
            return
        self._obey(connection, message, received)

    def _answering(self, connection: Socket, request_id: int) -> Callable[..., None]:
        def answer(result: Request, descriptors: Any = ()) -> None:
            self._send(connection, {"id": request_id, **result}, descriptors)

        return answer

    def _obey(self, connection: Socket, message: Request, received: list[int]) -> None:
        answer = self._answering(connection, message["id"])
        try:
            self._dispatch(message, received, answer, connection)
        except OSError as error:
            answer({"error": wording(error), "reason": "RuntimeError"})

    def _dispatch(self, message: Request, received: list[int], answer: Any, connection: Socket) -> None:
        operation = message["op"]
        if operation == "start":
            self._start(message["container"], received, answer)
        elif operation == "exec":
            self._exec(message, answer, connection)
        elif operation == "kill exec":
            try:
                if message["exec"] in self._execs:
                    wire.send(self._execs[message["exec"]], {"kill": True})
            except OSError:
                pass  # it has just ended
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
        containers: Request = {name: {"pid": 0, "started_at": 0, "exit": None} for name in self._starting}
        for container in self._containers.values():
            known = {"pid": container.pid, "started_at": container.started_at, "exit": container.exit}
            containers[container.id] = known
        over = self._pause_is_over()
        return {"version": wire.VERSION, "pid": os.getpid(), "containers": containers, "pause_ended": over}

    # The launcher.

    def _connect_launcher(self, connection: int = -1) -> None:
        """Takes over a worker's connection; or connects, and when the launcher was replaced hands everything over again."""
        try:
            self._launcher = wire.adopt(connection) if connection >= 0 else wire.connect(self._launcher_path)
        except OSError:
            self.loop.call_later(_RECONNECT_SECONDS, self._connect_launcher)
            return
        self.loop.watch(self._launcher.fileno(), self._launcher_gone)
        for name, fd in self._held.items() if connection < 0 else ():
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
