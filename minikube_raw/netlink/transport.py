"""A synchronous netlink socket that sends prepared messages in batches and reads their acknowledgements.

Errors are plain OSError with the kernel's errno, the kernel's own words (extended acknowledgement) and the object in
their text, so callers write `except FileExistsError`. A socket belongs to the network namespace it was opened in, not
to the thread that uses it: socket_in() opens one elsewhere and leaves the caller where it was.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from minikube_raw.linux import steps
from minikube_raw.linux.namespaces import in_namespace

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port (netlink(7))
RECEIVE_BYTES = 1 << 18
# The kernel works through a datagram before the sender goes on, and its acknowledgements queue up meanwhile.
MESSAGES_PER_DATAGRAM = 200


class Message(NamedTuple):
    """One request without sequence number: encoded body, what it does to which object (for traces and errors)."""

    kind: int
    flags: int
    body: bytes
    what: str
    subject: str
    ignore: tuple[int, ...] = ()  # errnos that mean "already so", e.g. EEXIST for an address that is there
    answered: bool = True  # False for the brackets of an nftables batch, which the kernel only answers when they fail


def from_pyroute2(
    message: Any, kind: int, flags: int, what: str, subject: object, ignore: tuple[int, ...] = ()
) -> Message:
    """Encodes a pyroute2 message; its header is replaced by ours when it is sent."""
    message.encode()
    return Message(kind, flags, bytes(message.data[HEADER.size :]), what, str(subject), ignore)


def to_pyroute2(message_class: Any, body: bytes) -> Any:
    """Decodes a body with a pyroute2 message class, which reads the length from a header."""
    message = message_class(HEADER.pack(HEADER.size + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


class NetlinkSocket:
    """A netlink socket of one family in the network namespace of the thread that makes it; close it or use `with`."""

    def __init__(self, family: int = NETLINK_ROUTE, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._socket.bind((0, groups))
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        except BaseException:
            self._socket.close()
            raise
        self._sequence = itertools.count(1)

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the descriptor; closing twice is fine."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, for poll(2) by those who joined multicast groups."""
        return self._socket.fileno()

    def request(self, *messages: Message) -> None:
        """Sends the messages in order and waits for all answers; raises OSError for the first that failed.

        The kernel goes through the whole batch even when one message fails: later ones still take effect.
        """
        failed: OSError | None = None
        for error in self.attempt(messages):
            failed = failed or error
        if failed:
            raise failed

    def attempt(self, messages: Sequence[Message]) -> list[OSError | None]:
        """Like request, but returns one outcome per message; an errno in Message.ignore counts as done."""
        outcomes: list[OSError | None] = []
        for start in range(0, len(messages), MESSAGES_PER_DATAGRAM):
            outcomes += self._attempt(messages[start : start + MESSAGES_PER_DATAGRAM])
        return outcomes

    def _attempt(self, messages: Sequence[Message]) -> list[OSError | None]:
        began = steps.begin()
        by_sequence: dict[int, Message] = {}
        datagram = bytearray()
        for message in messages:
            sequence = next(self._sequence)
            by_sequence[sequence] = message
            datagram += pack(message, message.flags | (NLM_F_ACK if message.answered else 0), sequence)
        self._socket.send(datagram)
        awaited = {sequence for sequence, message in by_sequence.items() if message.answered}
        outcomes: dict[int, OSError | None] = {}
        while not awaited <= outcomes.keys():
            for kind, flags, sequence, body in self._receive():
                if kind == NLMSG_ERROR and sequence in by_sequence:
                    outcomes[sequence] = outcome(by_sequence[sequence], flags, body)
                    if outcomes[sequence] and not by_sequence[sequence].answered:
                        awaited.clear()  # a batch refused as a whole: nothing else will be answered
        if began:
            steps.end(began, "netlink", "; ".join(f"{m.what} {m.subject}" for m in messages))
        return [outcomes.get(sequence) for sequence in by_sequence]

    def get(self, message: Message) -> bytes | None:
        """Asks for one object and returns its body (without netlink header), None when there is no such object."""
        began = steps.begin()
        sequence = next(self._sequence)
        self._socket.send(pack(message, message.flags | NLM_F_ACK, sequence))
        found: bytes | None = None
        while True:
            for kind, flags, answered, body in self._receive():
                if answered != sequence:
                    continue
                if kind != NLMSG_ERROR:
                    found = body
                    continue
                steps.end(began, "netlink", f"{message.what} {message.subject}")
                error = outcome(message, flags, body)
                if error is None:
                    return found
                if error.errno in (errno.ENODEV, errno.ENOENT):
                    return None
                raise error

    def dump(self, message: Message) -> list[bytes]:
        """Asks for all objects the message describes; a dump that another change interrupted is asked for again."""
        for _ in range(10):
            bodies, interrupted = self._dump(message)
            if not interrupted:
                break
        return bodies

    def _dump(self, message: Message) -> tuple[list[bytes], bool]:
        began = steps.begin()
        sequence = next(self._sequence)
        self._socket.send(pack(message, message.flags | NLM_F_DUMP, sequence))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, answered, body in self._receive():
                if answered != sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_ERROR and (error := outcome(message, flags, body)):
                    raise error
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    steps.end(began, "netlink", f"{message.what} {message.subject}")
                    return bodies, interrupted
                bodies.append(body)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        datagram = self._socket.recv(RECEIVE_BYTES)
        offset = 0
        while offset + HEADER.size <= len(datagram):
            length, kind, flags, sequence, _port = HEADER.unpack_from(datagram, offset)
            yield kind, flags, sequence, datagram[offset + HEADER.size : offset + length]
            offset += (length + 3) & ~3


def pack(message: Message, flags: int, sequence: int) -> bytes:
    """The message as it goes on the wire, padded to four bytes."""
    header = HEADER.pack(HEADER.size + len(message.body), message.kind, flags | NLM_F_REQUEST, sequence, 0)
    return header + message.body + bytes(-len(message.body) % 4)


def outcome(message: Message, flags: int, body: bytes) -> OSError | None:
    """Reads an NLMSG_ERROR body: None for success or an ignored errno, else the OSError with the kernel's
    explanation.
    """
    code = -struct.unpack_from("=i", body)[0]
    if code == 0 or code in message.ignore:
        return None
    text = os.strerror(code)
    if flags & NLM_F_ACK_TLVS and (said := extended_text(body, capped=bool(flags & NLM_F_CAPPED))):
        text = f"{text} ({said})"
    return OSError(code, f"{message.what} {message.subject}: {text}")


def extended_text(body: bytes, *, capped: bool) -> str:
    """The kernel's words in an extended acknowledgement; they follow the error code and the echoed request."""
    echoed = HEADER.size if capped else struct.unpack_from("=I", body, 4)[0]
    for kind, value in attributes(body, 4 + ((echoed + 3) & ~3)):
        if kind == NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute as it goes on the wire, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def u32(value: int) -> bytes:
    """A number as most attributes have it."""
    return struct.pack("=I", value)


def attributes(body: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Walks the attributes (type without flags, value) of a body from `offset`; stops at a malformed length."""
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4 or offset + length > len(body):
            return
        yield kind & 0x3FFF, body[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def socket_in(netns_fd: int, family: int = NETLINK_ROUTE) -> NetlinkSocket:
    """Opens a socket in another network namespace through a short-lived thread that joins it (0.15 ms, measured)."""
    return in_namespace(netns_fd, lambda: NetlinkSocket(family))
