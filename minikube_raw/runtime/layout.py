"""Where the runtime's files of one node lie: what survives a power cut in the state directory, sockets and pins in the run directory."""

from __future__ import annotations

import os

KEEPER_SOCKET = "keeper.sock"


class Layout:
    """Paths of one node."""

    def __init__(self, state_dir: str, run_dir: str) -> None:
        self.state_dir, self.run_dir = state_dir, run_dir
        self.sandbox_records = f"{state_dir}/records/sandboxes"
        self.container_records = f"{state_dir}/records/containers"
        self.exit_records = f"{state_dir}/records/exits"
        self.snapshots = f"{state_dir}/containers"
        self.mount_points = f"{state_dir}/mountpoints"
        self.sandboxes = f"{run_dir}/sandboxes"
        self.containers = f"{run_dir}/containers"
        self.netns_dir = f"{run_dir}/netns"
        self.traces = f"{run_dir}/traces"
        self.mount_point = f"{run_dir}/root"

    def make(self) -> None:
        """Makes the directories."""
        for directory in (
            self.sandboxes,
            self.containers,
            self.netns_dir,
            self.traces,
            self.mount_point,
            self.exit_records,
        ):
            os.makedirs(directory, 0o700, exist_ok=True)

    def sandbox(self, sandbox_id: str) -> str:
        """The directory of a sandbox: its keeper's socket, /etc files, shared memory's mount point."""
        return f"{self.sandboxes}/{sandbox_id}"

    def shm(self, sandbox_id: str) -> str:
        """Where the keeper mounts the pod's /dev/shm, in its own mount namespace."""
        return f"{self.sandbox(sandbox_id)}/shm"

    def keeper_socket(self, sandbox_id: str) -> str:
        """Where a keeper listens."""
        return f"{self.sandbox(sandbox_id)}/{KEEPER_SOCKET}"

    def netns(self, sandbox_id: str) -> str:
        """The pin of a sandbox's network namespace, which CNI plugins and `ip netns` can open."""
        return f"{self.netns_dir}/{sandbox_id}"

    def container(self, container_id: str) -> str:
        """The directory of a container's FIFOs and of the identity of its first process."""
        return f"{self.containers}/{container_id}"

    def exit_record(self, container_id: str) -> str:
        """How a container ended."""
        return f"{self.exit_records}/{container_id}.json"
