"""Frames of SPDY/3.1 to bytes and back, and what is refused."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikube_raw.streaming import spdy
from minikube_raw.streaming.spdyheaders import DICTIONARY, MAX_BLOCK_BYTES, HeaderEncoder

FRAMES = [
    spdy.SynStream(1, {"streamtype": "error"}),
    spdy.SynStream(3, {"streamtype": "data", "port": "80", "requestid": "0"}, fin=True, unidirectional=True),
    spdy.SynReply(1),
    spdy.Headers(1, {"more": "a\0b"}, fin=True),
    spdy.RstStream(3, spdy.CANCEL),
    spdy.Settings({4: 100, 7: 65536}),
    spdy.Ping(1),
    spdy.GoAway(3, spdy.GOAWAY_PROTOCOL_ERROR),
    spdy.WindowUpdate(1, 32768),
    spdy.Data(1, b"hello"),
    spdy.Data(1, b"", fin=True),
]

# A whole `echo hi | kubectl exec -i` of kubectl 1.20, as a server received it.
KUBECTL = bytes.fromhex(
    "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff"
    "800300010000001700000003000000000000c22e555c92929907000000ffff"
    "800300010000001900000005000000000000c22ac5565c92925f5a02000000ffff"
    "800300010000001500000007000000000000c229975a5404000000ffff"
    "000000030000000368690a0000000301000000"
    "800300030000000800000001000000058003000300000008000000050000000580030003000000080000000700000005"
    "80030007000000080000000000000000"
)


def control(kind: int, payload: bytes, *, version: int = 3, flags: int = 0) -> bytes:
    return struct.pack("!HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def deflated(plain: bytes) -> bytes:
    compressor = zlib.compressobj(zdict=DICTIONARY)
    return struct.pack("!IIBB", 1, 0, 0, 0) + compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)


def texts(*words: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(word)) + word for word in words)


def test_the_dictionary_is_the_specifications() -> None:
    # The Adler-32 is what a zlib stream names its dictionary by: clients put these very bytes into their first block.
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_every_frame_survives_the_way() -> None:
    sender, receiver = spdy.Framer(), spdy.Framer()
    sent = b"".join(sender.encode(frame) for frame in FRAMES)
    assert list(receiver.receive(sent)) == FRAMES


def test_kubectls_bytes_are_understood_one_at_a_time() -> None:
    framer = spdy.Framer()
    frames = [frame for value in KUBECTL for frame in framer.receive(bytes([value]))]
    types = {1: "error", 3: "stdin", 5: "stdout", 7: "stderr"}
    assert frames == [
        *(spdy.SynStream(number, {"streamtype": name}) for number, name in types.items()),
        *(spdy.Data(3, bytes([value])) for value in b"hi\n"),
        spdy.Data(3, b"", fin=True),
        *(spdy.RstStream(number, spdy.CANCEL) for number in (1, 5, 7)),
        spdy.GoAway(0),
    ]


@given(st.lists(st.integers(1, 200), max_size=20))
def test_cutting_the_bytes_changes_no_frame_but_data(cuts: list[int]) -> None:
    sender, receiver = spdy.Framer(), spdy.Framer()
    sent = b"".join(sender.encode(frame) for frame in FRAMES)
    received: list[spdy.Frame] = []
    for size in [*cuts, len(sent)]:
        received += receiver.receive(sent[:size])
        sent = sent[size:]
    payload = b"".join(frame.data for frame in received if isinstance(frame, spdy.Data))
    assert [frame for frame in received if not isinstance(frame, spdy.Data)] == FRAMES[:-2]
    assert payload == b"hello"
    assert received[-1] == spdy.Data(1, b"", fin=True)


def test_a_long_data_frame_is_handed_on_as_it_comes_and_ends_once() -> None:
    framer = spdy.Framer()
    whole = framer.encode(spdy.Data(1, bytes(1 << 20), fin=True))
    pieces = [*framer.receive(whole[:1000]), *framer.receive(whole[1000:-1]), *framer.receive(whole[-1:])]
    assert [(len(piece.data), piece.fin) for piece in pieces if isinstance(piece, spdy.Data)] == [
        (992, False),
        ((1 << 20) - 993, False),
        (1, True),
    ]


def test_unknown_control_frames_are_passed_over() -> None:
    framer = spdy.Framer()
    credential, ping = control(10, b"whatever"), control(6, struct.pack("!I", 1))
    assert list(framer.receive(credential + ping)) == [spdy.Ping(1)]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(struct.pack("!II", 0, 4) + b"data", id="data-on-stream-0"),
        pytest.param(control(6, struct.pack("!I", 1), version=2), id="version-2"),
        pytest.param(control(6, b"123"), id="short-ping"),
        pytest.param(control(6, b"12345678"), id="long-ping"),
        pytest.param(control(3, b"1234"), id="short-reset"),
        pytest.param(control(7, b"1234"), id="short-goaway"),
        pytest.param(control(9, b"1234"), id="short-window-update"),
        pytest.param(control(4, struct.pack("!I", 0xFFFFFFFF)), id="settings-that-promise-more"),
        pytest.param(control(1, b"123"), id="short-syn-stream"),
        pytest.param(struct.pack("!HHI", 0x8003, 1, spdy.MAX_CONTROL_BYTES + 1), id="control-frame-too-long"),
        pytest.param(control(1, bytes(10) + b"not deflated"), id="headers-not-deflated"),
        pytest.param(control(1, deflated(struct.pack("!I", 1))), id="headers-end-early"),
        pytest.param(control(1, deflated(struct.pack("!II", 1, 0xFFFFFFFF) + b"name")), id="name-longer-than-block"),
        pytest.param(control(1, deflated(struct.pack("!I", 2) + texts(b"a", b"1", b"a", b"2"))), id="name-twice"),
        pytest.param(control(1, deflated(struct.pack("!I", 1) + texts(b"StreamType", b"1"))), id="name-in-capitals"),
        pytest.param(control(1, deflated(struct.pack("!I", 1) + texts(b"", b"1"))), id="name-empty"),
        pytest.param(control(1, deflated(struct.pack("!I", 0) + b"more")), id="bytes-after-headers"),
        pytest.param(
            control(1, deflated(struct.pack("!I", 1) + texts(b"a", bytes(8 * MAX_BLOCK_BYTES)))), id="inflation-bomb"
        ),
    ],
)
def test_what_is_no_spdy_is_refused(sent: bytes) -> None:
    with pytest.raises(spdy.ProtocolError):
        list(spdy.Framer().receive(sent))


@given(st.binary(max_size=400))
def test_noise_is_refused_or_waited_for_but_never_breaks(noise: bytes) -> None:
    with contextlib.suppress(spdy.ProtocolError):
        list(spdy.Framer().receive(noise))


def test_header_blocks_build_on_those_before() -> None:
    encoder = HeaderEncoder()
    first, second = (encoder.encode({"streamtype": "stdin"}) for _ in range(2))
    assert len(second) < len(first)
