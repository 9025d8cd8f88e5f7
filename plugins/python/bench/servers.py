"""One of the servers that are compared: `python servers.py NAME DIR PORT`."""

from __future__ import annotations

import asyncio
import os
import socketserver
import sys
import wsgiref.simple_server
import wsgiref.util
from typing import Any


def main(name: str, folder: str, port: int) -> None:
    """Serves the folder at `/media/` in that way."""
    match name:
        case "millpond":
            sys.argv = ["millpond", folder, "--listen", f"127.0.0.1:{port}"]
            from millpond.__main__ import main as serve

            serve()
        case "starlette":
            from starlette.applications import Starlette
            from starlette.routing import Mount
            from starlette.staticfiles import StaticFiles

            asgi(Starlette(routes=[Mount("/media", StaticFiles(directory=folder))]), port)
        case "millpond-wsgi":
            from millpond import WsgiApp

            wsgi(WsgiApp(folder), port)
        case "piping":

            def pipe(environ: dict[str, Any], start_response: Any) -> Any:
                file = open(os.path.join(folder, os.path.basename(environ["PATH_INFO"])), "rb")  # noqa: SIM115
                length = os.fstat(file.fileno()).st_size
                fields = [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))]
                start_response("200 OK", fields)
                return wsgiref.util.FileWrapper(file, 65536)

            wsgi(pipe, port)


def asgi(app: Any, port: int) -> None:
    """uvicorn, as millpond's own command has it."""
    import uvicorn

    config = uvicorn.Config(app, port=port, http="h11", ws="none", lifespan="off", access_log=False, log_level="error")
    asyncio.run(uvicorn.Server(config).serve())


class _Threads(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_: Any) -> None:
        """A client that leaves is no news."""


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """No line for each request."""


def wsgi(app: Any, port: int) -> None:
    """wsgiref with a thread for each connection."""
    wsgiref.simple_server.make_server(
        "127.0.0.1", port, app, server_class=_Threads, handler_class=_Quiet
    ).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
