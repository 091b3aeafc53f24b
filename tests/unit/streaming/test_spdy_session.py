"""The server's side of a SPDY session, against a client in memory."""

from __future__ import annotations

import asyncio

import pytest
from spdy_client import Client

from minikube_raw.streaming import spdy
from minikube_raw.streaming.spdysession import CHUNK_BYTES, UNREAD_BYTES

INITIAL_WINDOW = 64 << 10


@pytest.fixture
async def client() -> Client:
    return Client()


async def test_a_stream_is_accepted_read_to_its_end_and_answered(client: Client) -> None:
    stream = await client.open()
    client.send(spdy.Data(1, b"question"), spdy.Data(1, b"", fin=True))
    assert [await stream.read(), await stream.read(), await stream.read()] == [b"question", b"", b""]
    await stream.write(b"answer")
    stream.finish()
    assert client.take_sent() == [spdy.SynReply(1), spdy.Data(1, b"answer"), spdy.Data(1, b"", fin=True)]


async def test_a_reader_waits_for_data(client: Client) -> None:
    stream = await client.open()
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    client.send(spdy.Data(1, b"late"))
    assert await reading == b"late"


async def test_a_long_write_is_cut_and_waits_while_the_transport_is_full(client: Client) -> None:
    stream = await client.open()
    client.take_sent()
    client.session.pause_writing()
    writing = asyncio.create_task(stream.write(bytes(2 * CHUNK_BYTES + 1)))
    await asyncio.sleep(0)
    assert client.take_sent() == []
    client.session.resume_writing()
    await writing
    assert [len(frame.data) for frame in client.take_sent() if isinstance(frame, spdy.Data)] == [
        CHUNK_BYTES,
        CHUNK_BYTES,
        1,
    ]


async def test_reading_stops_while_too_much_waits_and_goes_on_when_it_is_taken(client: Client) -> None:
    stream = await client.open()
    client.send(spdy.Data(1, bytes(UNREAD_BYTES)))
    assert client.wire.reading
    client.send(spdy.Data(1, b"!"))
    assert not client.wire.reading
    await stream.read()
    assert client.wire.reading


async def test_what_nobody_wants_holds_nobody_up(client: Client) -> None:
    stream = await client.open()
    client.send(spdy.Data(1, bytes(2 * UNREAD_BYTES)))
    stream.discard()
    client.send(spdy.Data(1, bytes(2 * UNREAD_BYTES)))
    assert client.wire.reading


async def test_a_client_that_obeys_windows_can_send_without_end(client: Client) -> None:
    stream = await client.open()
    windows = {0: INITIAL_WINDOW, 1: INITIAL_WINDOW}
    for _ in range(20):
        assert min(windows.values()) >= CHUNK_BYTES
        client.send(spdy.Data(1, bytes(CHUNK_BYTES)))
        await stream.read()
        windows = {number: left - CHUNK_BYTES for number, left in windows.items()}
        for frame in client.take_sent():
            if isinstance(frame, spdy.WindowUpdate):
                windows[frame.stream_id] += frame.delta


async def test_both_ends_make_room_for_another_stream() -> None:
    client = Client(max_streams=1)
    stream = await client.open(1)
    client.send(spdy.SynStream(3, {}))
    assert client.take_sent()[-1] == spdy.RstStream(3, spdy.REFUSED_STREAM)
    client.send(spdy.Data(1, b"", fin=True))
    stream.finish()
    assert (await client.open(5)).id == 5


async def test_streams_opened_and_reset_at_once_do_not_pile_up() -> None:
    client = Client(max_streams=2)
    for number in range(1, 20, 2):
        client.send(spdy.SynStream(number, {}), spdy.RstStream(number, spdy.CANCEL))
    refused = [frame for frame in client.take_sent() if isinstance(frame, spdy.RstStream)]
    assert len(refused) == 8


async def test_a_reset_breaks_reading_and_writing(client: Client) -> None:
    stream = await client.open()
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0)
    client.send(spdy.RstStream(1, spdy.CANCEL))
    with pytest.raises(ConnectionResetError):
        await reading
    with pytest.raises(ConnectionResetError):
        await stream.write(b"x")


async def test_a_refused_stream_is_reset_once(client: Client) -> None:
    client.send(spdy.SynStream(1, {}))
    stream = await client.session.next_stream()
    stream.reset(spdy.REFUSED_STREAM)
    stream.reset()
    assert client.take_sent() == [spdy.RstStream(1, spdy.REFUSED_STREAM)]


@pytest.mark.parametrize(
    "end",
    [pytest.param(spdy.Data(1, b"", fin=True), id="after-the-end"), pytest.param(spdy.Ping(1), id="never-opened")],
)
async def test_data_where_no_stream_is_open_is_reset(client: Client, end: spdy.Frame) -> None:
    number = 1 if isinstance(end, spdy.Data) else 7
    await client.open()
    client.send(end, spdy.Data(number, b"lost"))
    assert client.take_sent()[-1] == spdy.RstStream(number, spdy.INVALID_STREAM)


async def test_a_clients_pings_come_back_and_our_own_do_not(client: Client) -> None:
    client.send(spdy.Ping(1), spdy.Ping(2), spdy.Ping(3))
    assert client.take_sent() == [spdy.Ping(1), spdy.Ping(3)]


async def test_a_client_that_reads_no_answers_asks_no_more(client: Client) -> None:
    client.session.pause_writing()
    client.send(spdy.Ping(1))
    assert not client.wire.reading
    client.session.resume_writing()
    assert client.wire.reading


@pytest.mark.parametrize(
    "number", [pytest.param(2, id="even"), pytest.param(1, id="twice"), pytest.param(0, id="zero")]
)
async def test_a_stream_number_out_of_order_ends_the_session(client: Client, number: int) -> None:
    await client.open(1)
    client.send(spdy.SynStream(number, {}))
    assert client.take_sent()[-1] == spdy.GoAway(1, spdy.GOAWAY_PROTOCOL_ERROR)
    assert client.wire.closed


async def test_a_malformed_frame_ends_the_session_after_those_before_it(client: Client) -> None:
    ping = client.wire.framer.encode(spdy.Ping(1))
    client.session.data_received(ping + b"\x80\x02\x00\x06\x00\x00\x00\x00")
    assert client.take_sent() == [spdy.Ping(1), spdy.GoAway(0, spdy.GOAWAY_PROTOCOL_ERROR)]
    assert client.wire.closed


async def test_a_lost_connection_wakes_everyone(client: Client) -> None:
    stream = await client.open()
    client.session.pause_writing()
    waiting = [
        asyncio.create_task(wait)
        for wait in (stream.read(), stream.write(b"x"), client.session.next_stream(), client.session.next_stream())
    ]
    await asyncio.sleep(0)
    client.session.connection_lost(None)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionResetError] * 4


async def test_what_came_before_the_end_is_read_after_the_connection_is_lost(client: Client) -> None:
    stream = await client.open()
    stream.finish()
    client.send(spdy.Data(1, b"last words", fin=True))
    client.session.connection_lost(None)
    assert await stream.read() == b"last words"


async def test_closing_lets_the_client_go_first(client: Client) -> None:
    closing = asyncio.create_task(client.session.close())
    await asyncio.sleep(0)
    assert not client.wire.closed
    client.session.connection_lost(None)
    await closing
