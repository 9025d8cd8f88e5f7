"""A folder of media, and the ways to serve it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import waitress.server

from millpond import Figures, Settings, WsgiApp

REPOSITORY = Path(__file__).resolve().parents[3]
HOSTILE = REPOSITORY / "tests/guests/hostile.wasm"

MODIFIED_NS = 784_111_777_123_456_700
NOISE = bytes((place * 31 + place // 256 * 7) % 256 for place in range(300_000))
PRIVATE = b"GIF89a private"
KEYS = {"k1": "000102030405060708090a0b0c0d0e0f"}
SETTINGS = {"negative-ttl": "7", "signing-keys": f"k1:{KEYS['k1']}"}


def put(folder: Path, name: str, content: bytes) -> Path:
    """A named file, of a known age."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(MODIFIED_NS, MODIFIED_NS))
    return path


def store(folder: Path, content: bytes, **record: Any) -> str:
    """Media by its content, with a record beside it: its id."""
    id_ = hashlib.sha256(content).hexdigest()
    put(folder, f"{id_[:2]}/{id_}", content)
    written = {"media_type": "image/gif", "size": len(content), "created": "2026-01-02T03:04:05Z", "access": "public"}
    (folder / id_[:2] / f"{id_}.json").write_text(json.dumps(written | record))
    return id_


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder of media."""
    folder = tmp_path / "media"
    put(folder, "noise.bin", NOISE)
    put(folder, "small.txt", b"Twelve bytes")
    put(folder, "empty.txt", b"")
    put(folder, "a b/ü.gif", b"GIF89a")
    store(folder, PRIVATE, access="private")
    return folder


@dataclass
class Response:
    """What came back, to the connection's end."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        """A field's value; the test fails where there are several."""
        found = [value for key, value in self.fields if key == name]
        assert len(found) <= 1, self.fields
        return found[0] if found else None

    @property
    def error(self) -> str:
        """What an error says."""
        message = json.loads(self.body)["error"]
        assert isinstance(message, str)
        return message


@dataclass
class Served:
    """A server and how to ask it."""

    address: tuple[str, int]
    figures: Callable[[], Figures]
    process: subprocess.Popen[str] | None = None

    def connect(self, method: str, target: str, *fields: str) -> socket.socket:
        """A connection on which a request has gone out."""
        client = socket.create_connection(self.address, timeout=30)
        lines = [f"{method} {target} HTTP/1.1", "host: millpond.test", "connection: close", *fields, "", ""]
        client.sendall("\r\n".join(lines).encode("latin-1"))
        return client

    def ask(self, target: str, *fields: str, method: str = "GET") -> Response:
        """A request's response, read to the connection's end."""
        with self.connect(method, target, *fields) as client:
            return read(client)


def read(client: socket.socket) -> Response:
    """A response, read to the connection's end, be that as it may."""
    data = b""
    try:
        while piece := client.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, data
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    fields = [(name.lower(), value.strip()) for name, _, value in pairs]
    return Response(int(status.split(" ")[1]), fields, body)


@contextmanager
def serve_uvicorn(folder: Path, *options: str) -> Iterator[Served]:
    """The command, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "millpond", str(folder), "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            assert first.startswith("listening on http://127.0.0.1:"), first

            def figures() -> Figures:
                import signal

                assert process.stdout
                process.send_signal(signal.SIGUSR2)
                found: Figures = json.loads(process.stdout.readline())
                return found

            yield Served(("127.0.0.1", int(first.rpartition(":")[2])), figures, process)
        finally:
            process.terminate()


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """No line for each request."""


class _Unasked(wsgiref.simple_server.WSGIServer):
    def handle_error(self, *_: Any) -> None:
        """A client that leaves is what the test wants."""


@contextmanager
def serve_wsgiref(app: WsgiApp) -> Iterator[Served]:
    """wsgiref, one request after another in a thread."""
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, server_class=_Unasked, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Served(("127.0.0.1", server.server_port), app.figures)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve_waitress(app: WsgiApp) -> Iterator[Served]:
    """waitress, with threads of its own."""
    server = waitress.server.create_server(app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Served(("127.0.0.1", int(server.effective_port)), app.figures)
    finally:

        def stop() -> None:
            for channel in list(server.active_channels.values()):
                channel.handle_close()
            server.close()

        # It has to be done in the thread that serves.
        server.trigger.pull_trigger(stop)
        thread.join()
        server.task_dispatcher.shutdown()


def serve(way: str, folder: Path) -> AbstractContextManager[Served]:
    """The folder under a server of that name, with the settings of the tests."""
    if way == "uvicorn":
        return serve_uvicorn(folder, *(f"--setting={key}={value}" for key, value in SETTINGS.items()))

    @contextmanager
    def under_wsgi() -> Iterator[Served]:
        with ExitStack() as stack:
            app = stack.enter_context(WsgiApp(folder, settings=Settings.parse(SETTINGS)))
            yield stack.enter_context(serve_wsgiref(app) if way == "wsgiref" else serve_waitress(app))

    return under_wsgi()


@pytest.fixture(params=["uvicorn", "wsgiref", "waitress"])
def served(request: pytest.FixtureRequest, media: Path) -> Iterator[Served]:
    """The folder of media, under each server in turn."""
    with serve(request.param, media) as served:
        yield served
