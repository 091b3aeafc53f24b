"""What versions of the remotecommand protocol make of the streams of an exec, and how one is agreed on."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from spdy_client import Client

from minikube_raw.api.status import StatusError
from minikube_raw.streaming import spdy, spdyexec
from minikube_raw.streaming.channels import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Message
from minikube_raw.streaming.spdyexec import V1, V2, V3, V4, SpdyChannels
from minikube_raw.streaming.spdyupgrade import negotiate, wants_spdy

SUCCESS = b'{"status":"Success"}'
FAILURE = b'{"status":"Failure","message":"command terminated with non-zero exit code"}'


@pytest.fixture
async def client() -> Client:
    return Client()


async def opened(client: Client, protocol: str, *channels: int) -> SpdyChannels:
    streams = {channel: await client.open(2 * channel + 1) for channel in sorted((ERROR, *channels))}
    client.take_sent()
    return SpdyChannels(client.session, streams, protocol)


async def finish(client: Client, channels: SpdyChannels, final: bytes) -> dict[int, bytes]:
    """Return what the client got on each stream that was ended for it, by channel."""
    finishing = asyncio.create_task(channels.finish(final))
    await asyncio.sleep(0)
    sent = client.take_sent()
    client.session.connection_lost(None)
    await finishing
    got = {frame.stream_id // 2: b"" for frame in sent if isinstance(frame, spdy.Data) and frame.fin}
    for frame in sent:
        if isinstance(frame, spdy.Data):
            got[frame.stream_id // 2] += frame.data
    return got


@pytest.mark.parametrize(
    ("protocol", "final", "said"),
    [
        pytest.param(V4, SUCCESS, SUCCESS, id="v4-success"),
        pytest.param(V4, FAILURE, FAILURE, id="v4-failure"),
        pytest.param(V3, SUCCESS, b"", id="v3-success"),
        pytest.param(V3, FAILURE, b"command terminated with non-zero exit code", id="v3-failure"),
        pytest.param(V2, FAILURE, b"command terminated with non-zero exit code", id="v2-failure"),
        pytest.param(V1, FAILURE, b"command terminated with non-zero exit code", id="v1-failure"),
    ],
)
async def test_the_error_stream_says_how_it_ended(client: Client, protocol: str, final: bytes, said: bytes) -> None:
    channels = await opened(client, protocol, STDIN, STDOUT, STDERR)
    assert await finish(client, channels, final) == {ERROR: said, STDIN: b"", STDOUT: b"", STDERR: b""}


async def test_input_comes_in_order_and_its_end_once(client: Client) -> None:
    channels = await opened(client, V4, STDIN, RESIZE)
    client.send(spdy.Data(2 * STDIN + 1, b"words"), spdy.Data(2 * STDIN + 1, b"", fin=True))
    assert [await channels.receive(), await channels.receive()] == [
        Message(STDIN, b"words"),
        Message(CLOSE, bytes([STDIN])),
    ]
    client.send(spdy.Data(2 * RESIZE + 1, b'{"Width":80,"Height":24}'))
    assert await channels.receive() == Message(RESIZE, b'{"Width":80,"Height":24}')
    client.session.connection_lost(None)
    assert await channels.receive() is None


async def test_sizes_that_come_together_or_in_halves_are_told_one_by_one(client: Client) -> None:
    channels = await opened(client, V4, STDIN, RESIZE)
    sizes = [b'{"Width":%d,"Height":24}' % width for width in (80, 81, 82)]
    client.send(spdy.Data(2 * RESIZE + 1, b"\n".join(sizes)[:60]))
    assert [await channels.receive(), await channels.receive()] == [Message(RESIZE, size) for size in sizes[:2]]
    client.send(spdy.Data(2 * RESIZE + 1, b"\n".join(sizes)[60:] + b"\n"))
    assert await channels.receive() == Message(RESIZE, sizes[2])


async def test_a_client_that_resets_its_stdin_has_gone(client: Client) -> None:
    channels = await opened(client, V4, STDIN)
    client.send(spdy.RstStream(2 * STDIN + 1, spdy.CANCEL))
    assert await channels.receive() is None


async def test_output_on_a_channel_that_was_not_opened_is_dropped(client: Client) -> None:
    channels = await opened(client, V4, STDOUT)
    await channels.send(STDERR, b"unheard")
    await channels.send(STDOUT, b"heard")
    assert client.take_sent() == [spdy.Data(2 * STDOUT + 1, b"heard")]


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        pytest.param([V4, V3, V2, V1], V4, id="the-best"),
        pytest.param([V1, V2, V3], V3, id="order-is-ours"),
        pytest.param([f"{V2}, {V1}"], V2, id="one-line"),
        pytest.param(["v5.channel.k8s.io", V4], V4, id="newer-ones-passed-over"),
        pytest.param([], "", id="none-offered"),
    ],
)
def test_the_best_common_version_is_agreed_on(offered: list[str], agreed: str) -> None:
    headers = CIMultiDict(("X-Stream-Protocol-Version", value) for value in offered)
    assert negotiate(make_mocked_request("POST", "/", headers), spdyexec.PROTOCOLS) == agreed


def test_without_a_common_version_the_upgrade_is_refused() -> None:
    http = make_mocked_request("POST", "/", {"X-Stream-Protocol-Version": "v9.channel.k8s.io"})
    with pytest.raises(StatusError, match=r"client supports \[v9.channel.k8s.io\], server accepts \[v4") as refused:
        negotiate(http, spdyexec.PROTOCOLS)
    assert refused.value.code == 403


@pytest.mark.parametrize(
    ("connection", "upgrade", "wanted"),
    [
        pytest.param("Upgrade", "SPDY/3.1", True, id="kubectl"),
        pytest.param("keep-alive, upgrade", "spdy/3.1", True, id="other-spelling"),
        pytest.param("Upgrade", "websocket", False, id="websocket"),
        pytest.param("keep-alive", "SPDY/3.1", False, id="no-upgrade"),
    ],
)
def test_an_upgrade_is_recognised(connection: str, upgrade: str, wanted: bool) -> None:
    assert wants_spdy(make_mocked_request("POST", "/", {"Connection": connection, "Upgrade": upgrade})) is wanted
