"""An ASGI application (asgi.readthedocs.io, the HTTP and the lifespan protocol)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from ._application import Application, Request, origin_form, without_mount
from ._folder import Slice
from ._guest import Answer
from ._response import length_of
from .figures import Outcome
from .limits import PIECE_BYTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

T = TypeVar("T")


class ClientStalled(Exception):
    """The client takes too little for too long, and is given up."""


class AsgiApp(Application):
    """Serves a folder of media to an ASGI server on asyncio.

    A call returns when the response is out, or its client gone. It raises when a file cannot be read or has shrunk once
    the head is out, and the server has to abort the connection then: a short body must never look whole.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The queue is bounded by the requests that may be in flight.
        self._threads = ThreadPoolExecutor(self.limits.threads, "millpond")

    def close(self) -> None:
        """Ends the threads and closes the folder. To be called when no request is in flight any more."""
        self._threads.shutdown()
        super().close()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send)
            case "lifespan":
                await _live(receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close"})
            case other:
                raise ValueError(f"millpond serves http, not {other}")

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        request = self.begin()
        if request is None:
            refusal = self.refuse()
            await send(_start(refusal))
            await send(_content(b"".join(part for part in refusal.parts if isinstance(part, bytes)), more=False))
            return
        try:
            answer = await self._in_thread(_answer, _close, request, scope)
        except BaseException:
            request.end("failed")
            raise
        body = _Body(self, answer)
        end: Outcome = "failed"
        try:
            end = "completed" if await self._send(body, receive, send) else "aborted"
        except (ClientStalled, asyncio.CancelledError):
            end = "aborted"
            raise
        finally:
            body.close()
            request.end(end)

    async def _send(self, body: _Body, receive: Receive, send: Send) -> bool:
        """Sends head and body: whether the client stayed."""
        await self._hand(send, _start(body.answer))
        piece = b"" if body.is_over else await body.next()
        if body.is_over:
            await self._hand(send, _content(piece, more=False))
            return True
        # Not before the head is out: a server takes a call of `receive` for an answer to `Expect: 100-continue`.
        leaving = asyncio.ensure_future(_until_disconnect(receive))
        sending = asyncio.ensure_future(self._send_pieces(piece, body, send))
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() and not body.is_over:
                leaving.result()
                return False
            # A server may tell that there is nothing more to come while it takes the last piece.
            await sending
            return True
        finally:
            await _cancel(sending)
            await _cancel(leaving)

    async def _send_pieces(self, piece: bytes, body: _Body, send: Send) -> None:
        while not body.is_over:
            await self._hand(send, _content(piece, more=True))
            # Neither a server with room nor the page cache waits for anything; others have their turn, and so has the
            # news that the client has gone.
            await asyncio.sleep(0)
            piece = await body.next()
        await self._hand(send, _content(piece, more=False))

    async def _hand(self, send: Send, message: Message) -> None:
        """Hands the server a message, which it takes when there is room for it.

        :raises ClientStalled: when that is for too long not the case.
        """
        try:
            async with asyncio.timeout(self.limits.send_timeout_seconds):
                await send(message)
        except TimeoutError as timeout:
            raise ClientStalled("the client takes too little") from timeout

    async def _in_thread(self, does: Callable[..., T], undo: Callable[[T], None], *arguments: Any) -> T:
        """Runs a function in a thread and returns its result. If the caller is cancelled, the result is undone."""
        future = self._threads.submit(does, *arguments)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:

            def left(done: Future[T]) -> None:
                if not done.cancelled() and done.exception() is None:
                    undo(done.result())

            future.add_done_callback(left)
            raise


class _Body:
    """A response's content, piece by piece. It holds open files and one piece at most."""

    def __init__(self, application: AsgiApp, answer: Answer) -> None:
        self.answer = answer
        self._application = application
        self._piece_bytes = 0
        self._left_bytes = sum(map(length_of, answer.parts))

    @property
    def is_over(self) -> bool:
        """Whether no piece is left."""
        return self._left_bytes == 0

    async def next(self) -> bytes:
        """The next piece, which is never empty. The one before is given back."""
        self._hold(0)
        parts = self.answer.parts
        while length_of(parts[0]) == 0:
            _close_part(parts.pop(0))
        part = parts[0]
        if isinstance(part, bytes):
            parts.pop(0)
            piece = part
        else:
            piece = await self._read(part)
            part.skip(len(piece))
            if part.length_bytes == 0:
                parts.pop(0)
                part.close()
        self._left_bytes -= len(piece)
        self._hold(len(piece))
        return piece

    def close(self) -> None:
        """Gives back what it holds."""
        self._hold(0)
        self.answer.close()

    async def _read(self, part: Slice) -> bytes:
        count = min(part.length_bytes, PIECE_BYTES)
        # A read from the page cache does not block, so it needs no other thread.
        piece = part.file.read_now(part.offset, count)
        if piece is None:
            file = part.file.hold()
            future = self._application._threads.submit(file.read, part.offset, count)
            # Also when it is cancelled before it has begun: the file is open for as long as a thread may read it.
            future.add_done_callback(lambda _: file.close())
            piece = await asyncio.wrap_future(future)
        return piece

    def _hold(self, piece_bytes: int) -> None:
        self._application.accounts.hold("buffer_bytes", piece_bytes - self._piece_bytes)
        self._piece_bytes = piece_bytes


def _answer(request: Request, scope: MutableMapping[str, Any]) -> Answer:
    fields = [(name.decode("latin-1").lower(), bytes(value)) for name, value in scope["headers"]]
    client = scope.get("client")
    return request.answer(scope["method"], _target(scope), fields, client[0] if client else None)


def _target(scope: MutableMapping[str, Any]) -> str:
    raw = scope.get("raw_path")
    # A server that tells no raw path has lost what was encoded how; this is as near as it gets.
    path = raw.decode("latin-1") if raw else _encode(scope["path"])
    query = scope.get("query_string", b"").decode("latin-1")
    target = without_mount(origin_form(path), scope.get("root_path", ""))
    return f"{target}?{query}" if query else target


def _encode(path: str) -> str:
    return quote(path, safe="/!$&'()*+,;=:@~-._")


def _close(answer: Answer) -> None:
    answer.close()


def _close_part(part: bytes | Slice) -> None:
    if isinstance(part, Slice):
        part.close()


def _start(answer: Answer) -> Message:
    fields = [(name.encode("ascii"), value) for name, value in answer.fields]
    return {"type": "http.response.start", "status": answer.status, "headers": fields}


def _content(piece: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


async def _until_disconnect(receive: Receive) -> None:
    """Returns when the client has gone; a request's content is not looked at."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancels a task and waits until it is over; what it came to is told elsewhere."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
