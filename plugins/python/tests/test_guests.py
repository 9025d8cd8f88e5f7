"""Guests that misbehave: each is ended, told from the others, and nobody else notices."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import HOSTILE, put

from millpond import ComponentError, Limits, Settings, WsgiApp

pytestmark = pytest.mark.skipif(not HOSTILE.is_file(), reason="the hostile guest lies in the repository")


def ask(app: WsgiApp, path: str) -> tuple[str, bytes]:
    """A request without a server: its status and its content."""
    told: list[str] = []
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.input": io.BytesIO()}

    def start_response(status: str, fields: list[tuple[str, str]], _: Any = None, /) -> Any:
        told.append(status)

    body = app(environ, start_response)
    try:
        return told[0], b"".join(body)
    finally:
        body.close()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[WsgiApp]:
    put(tmp_path, "small.txt", b"small")
    # Room for deeds that need some memory to reach another limit.
    limits = Limits(memory_bytes=2 << 20, fuel=20_000_000)
    with WsgiApp(tmp_path, settings=Settings(mount_path="/"), limits=limits, component=HOSTILE.read_bytes()) as app:
        yield app
        figures = app.figures()
        assert (figures["open_files"], figures["requests_in_flight"], figures["buffer_bytes"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("deed", "status", "message"),
    [
        ("memory-hog", "500", "Media component failed"),
        ("spinner", "503", "Request took too long"),
        ("trap", "500", "Media component failed"),
        ("stack", "500", "Request limit reached: stack"),
        ("endless-string", "500", "Request limit reached: lifted bytes"),
        ("endless-key", "500", "Request limit reached: lifted bytes"),
        ("small-lifts", "500", "Request limit reached: lifted bytes"),
        ("handle-hoarder", "500", "Request limit reached: handles"),
        ("stream-hoarder", "500", "Request limit reached: handles"),
        ("growth-in-a-call", "500", "Media component failed"),
        ("hundred-thousand-fields", "500", "Media component failed"),
        ("many-parts", "500", "Request limit reached: handles"),
        ("lying-part", "500", "Media component failed"),
        ("lying-length", "500", "Media component failed"),
        ("length-is-no-number", "500", "Media component failed"),
        ("connection-field", "500", "Media component failed"),
        ("broken-field-value", "500", "Media component failed"),
        ("broken-field-name", "500", "Media component failed"),
        ("status-99", "500", "Media component failed"),
        ("status-101", "500", "Media component failed"),
        ("status-1000", "500", "Media component failed"),
    ],
)
def test_each_deed_is_ended_while_others_go_on(app: WsgiApp, deed: str, status: str, message: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        hostile = threads.submit(ask, app, f"/hostile/{deed}")
        normal = [threads.submit(ask, app, "/small.txt") for _ in range(50)]
        assert {each.result() for each in normal} == {("200 OK", b"small")}
        told, content = hostile.result()
    assert (told[:3], content.decode()) == (status, f'{{"error":"{message}"}}')
    figures = app.figures()
    assert figures["completed"] == 50
    assert figures["limited" if "limit" in message or status == "503" else "failed"] == 1


def test_what_is_lifted_from_an_answer_is_limited(app: WsgiApp) -> None:
    assert ask(app, "/hostile/many-fields") == (
        "500 Internal Server Error",
        b'{"error":"Request limit reached: lifted bytes"}',
    )


def test_a_guest_may_read_what_it_is_given_and_the_rest_is_sent(app: WsgiApp) -> None:
    assert ask(app, "/hostile/reads-media") == ("200 OK", b"small")
    assert ask(app, "/hostile/reads-then-sends") == ("200 OK", b"all")


def test_a_component_that_does_not_fit_is_told_at_the_start(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ComponentError, match="guest memory"):
        WsgiApp(tmp_path, limits=Limits(memory_bytes=65535))
    with pytest.raises(ComponentError, match="not a WebAssembly component"):
        WsgiApp(tmp_path, component=b"\0asm")
    other = b'(component (import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func (result u64))))))'
    with pytest.raises(ComponentError, match="does not export millpond:media/media-serve"):
        WsgiApp(tmp_path, component=other)
    assert len(os.listdir("/proc/self/fd")) == before
