"""Clients that leave, clients that stall, files that shrink, and more requests than there may be."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from conftest import NOISE, Response, Served, put, read, serve_uvicorn

from millpond import AsgiApp, Limits, Truncated
from millpond.asgi import ClientStalled

LARGE_BYTES = 8 << 20


def open_descriptors(served: Served) -> int:
    assert served.process
    return len(os.listdir(f"/proc/{served.process.pid}/fd"))


def until(condition: Callable[[], bool]) -> None:
    """Waits for what comes of itself; that it never comes is what the run's own time limit tells."""
    while not condition():
        os.sched_yield()


def test_200_clients_leave_at_random_moments(media: Path) -> None:
    put(media, "large.bin", b"\x07" * LARGE_BYTES)
    with serve_uvicorn(media) as served:
        assert served.ask("/media/small.txt").status == 200
        # The files are read for their digests now, and for no test's sake later.
        for name in ("large.bin", "noise.bin"):
            until(lambda name=name: served.ask(f"/media/{name}", method="HEAD").field("repr-digest") is not None)  # type: ignore[misc]
        before = open_descriptors(served)
        chance = random.Random(1)
        for _ in range(200):
            client = served.connect("GET", chance.choice(["/media/large.bin", "/media/noise.bin", "/media/none"]))
            wanted = chance.choice([0, 1, 1000, 100_000, 3_000_000])
            while wanted > 0 and (piece := client.recv(min(wanted, 65536))):
                wanted -= len(piece)
            if chance.random() < 0.5:
                # Reset, with what was sent still unread.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        until(lambda: served.figures()["requests_in_flight"] == 0)
        figures = served.figures()
        assert (figures["open_files"], figures["buffer_bytes"], figures["failed"]) == (0, 0, 0)
        assert figures["aborted"] > 20
        until(lambda: open_descriptors(served) == before)
        assert served.ask("/media/noise.bin").body == NOISE


def test_a_file_that_shrinks_ends_in_an_abort(served: Served, media: Path) -> None:
    path = put(media, "shrinks.bin", b"\x07" * LARGE_BYTES)
    with served.connect("GET", "/media/shrinks.bin") as client:
        start = b""
        # A server may send the head in pieces.
        while b"\r\n\r\n" not in start and (piece := client.recv(65536)):
            start += piece
        assert b"content-length: %d" % LARGE_BYTES in start.lower()
        os.truncate(path, LARGE_BYTES // 2)
        received = len(start.partition(b"\r\n\r\n")[2])
        try:
            while piece := client.recv(1 << 20):
                received += len(piece)
        except ConnectionResetError:
            pass
    assert received < LARGE_BYTES
    until(lambda: served.figures()["requests_in_flight"] == 0)
    figures = served.figures()
    assert (figures["open_files"], figures["failed"], figures["completed"]) == (0, 1, 0)


def test_a_client_that_leaves_gives_all_back(served: Served, media: Path) -> None:
    # More than waitress keeps for a client, so that it notices.
    put(media, "larger.bin", b"\x07" * (64 << 20))
    with served.connect("GET", "/media/larger.bin") as client:
        assert client.recv(1000)
        until(lambda: served.figures()["open_files"] == 1)
    until(lambda: served.figures()["requests_in_flight"] == 0)
    figures = served.figures()
    assert (figures["open_files"], figures["buffer_bytes"], figures["aborted"]) == (0, 0, 1)


def test_one_request_too_many_is_told_to_come_again(media: Path) -> None:
    put(media, "large.bin", b"\x07" * LARGE_BYTES)
    with serve_uvicorn(media, "--requests", "2") as served:
        slow = [served.connect("GET", "/media/large.bin") for _ in range(2)]
        until(lambda: served.figures()["requests_in_flight"] == 2)
        refused = served.ask("/media/small.txt")
        assert (refused.status, refused.error, refused.field("retry-after")) == (503, "Server is busy", "1")
        whole: list[Response] = []
        for client in slow:
            with client:
                whole.append(read(client))
        assert [len(answer.body) for answer in whole] == [LARGE_BYTES, LARGE_BYTES]
        assert served.ask("/media/small.txt").status == 200
        assert served.figures()["rejected"] == 1


def scope(path: str) -> MutableMapping[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }


async def never() -> MutableMapping[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_client_that_stalls_is_given_up(media: Path) -> None:
    async def stalls(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await never()

    with AsgiApp(media, limits=Limits(send_timeout_seconds=0.01)) as app:
        for path in ("/media/noise.bin", "/media/small.txt"):
            with pytest.raises(ClientStalled):
                asyncio.run(app(scope(path), never, stalls))
        figures = app.figures()
        assert (figures["open_files"], figures["buffer_bytes"], figures["aborted"]) == (0, 0, 2)


def test_a_server_that_cancels_gets_all_back(media: Path) -> None:
    async def run(app: AsgiApp) -> None:
        reached = asyncio.Event()

        async def waits(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body":
                reached.set()
                await never()

        task = asyncio.ensure_future(app(scope("/media/noise.bin"), never, waits))
        await reached.wait()
        assert app.figures()["open_files"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        # Before the guest has answered: what it comes to is closed in its thread.
        task = asyncio.ensure_future(app(scope("/media/noise.bin"), never, waits))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with AsgiApp(media) as app:
        asyncio.run(run(app))
        until(lambda: app.figures()["open_files"] == 0)
        assert app.figures()["requests_in_flight"] == 0


def test_a_read_that_waits_for_the_disk_is_made_in_a_thread(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the page cache has nothing, or the system cannot tell."""
    monkeypatch.setattr("millpond._folder._NOWAIT", None)
    sent: list[bytes] = []

    async def takes(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    async def shrinks(message: MutableMapping[str, Any]) -> None:
        os.truncate(media / "noise.bin", 100_000)

    with AsgiApp(media) as app:
        asyncio.run(app(scope("/media/noise.bin"), never, takes))
        assert b"".join(sent) == NOISE
        with pytest.raises(Truncated):
            asyncio.run(app(scope("/media/noise.bin"), never, shrinks))
        figures = app.figures()
        assert (figures["open_files"], figures["completed"], figures["failed"]) == (0, 1, 1)


def test_lifespan(media: Path) -> None:
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> MutableMapping[str, Any]:
        return next(received)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    with AsgiApp(media) as app:
        asyncio.run(app({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
