"""``python -m millpond DIR``: serves a folder by uvicorn, with h11 (``pip install millpond[server]``)."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import json
import logging
import signal
import socket
import sys
from types import FrameType
from typing import Final

from . import AsgiApp, ComponentError, Limits, SettingError, Settings

# Maximum of unsent bytes in the kernel's buffer of a connection, beside uvicorn's buffer.
_NOT_SENT_BYTES: Final = 128 * 1024

# Time after which the kernel gives up on a client that acknowledges nothing.
_UNACKNOWLEDGED_MS: Final = 30_000

_GRACE_SECONDS: Final = 10


def main() -> int:
    """Serves until SIGTERM or SIGINT. Exit codes: 0 done, 1 stopped at once by a second one, 2 it could not begin."""
    _take_signals()
    options = _options()
    if importlib.util.find_spec("uvicorn") is None:
        print("millpond: there is no server to serve with: pip install 'millpond[server]'", file=sys.stderr)
        return 2
    try:
        pairs = dict(setting.split("=", 1) for setting in options.setting)
        if options.mount_path is not None:
            pairs["mount-path"] = options.mount_path
        settings = Settings.parse(pairs)
        limits = Limits(**{name: getattr(options, name) for name in _LIMITS if getattr(options, name) is not None})
        component = None
        if options.component is not None:
            with open(options.component, "rb") as file:
                component = file.read()
        app = AsgiApp(options.dir, settings=settings, limits=limits, component=component)
        listener = _listen(options.listen)
    except (OSError, ComponentError, SettingError, ValueError) as error:
        print(f"millpond: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # uvicorn ends gracefully, and then raises the signals that it caught once more.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda _number, _frame: None)
    with app:
        is_whole = asyncio.run(_serve(app, listener))
    return 0 if is_whole else 1


def _take_signals() -> None:
    """Takes the signals that would end the process with its answers cut."""

    def say(number: int, _frame: FrameType | None) -> None:
        print(f"millpond: {signal.Signals(number).name}: there is nothing to read again", file=sys.stderr, flush=True)

    for name in ("SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), say)
    # A container that was made for nginx is ended with it.
    if hasattr(signal, "SIGQUIT"):
        signal.signal(signal.SIGQUIT, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))


_LIMITS: Final = tuple(field.name for field in dataclasses.fields(Limits))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m millpond", description="Serves a folder of media.")
    parser.add_argument("dir", metavar="DIR", help="where the media lies")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="port 0 takes a free one")
    parser.add_argument("--mount-path", metavar="PATH", help="where named files are served; /media")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="KEY=VALUE", help="a setting, such as negative-ttl=10"
    )
    parser.add_argument("--component", metavar="FILE", help="a component of your own")
    for name in _LIMITS:
        of_type = float if name == "send_timeout_seconds" else int
        default = getattr(Limits(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=of_type, metavar="N", help=f"{default}")
    options = parser.parse_args()
    if not all("=" in setting for setting in options.setting):
        parser.error("a setting is KEY=VALUE")
    return options


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address} is not HOST:PORT")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=1024)
    # Connections inherit these options. asyncio sets TCP_NODELAY only for sockets of a named protocol, not for
    # this one. Without it, each response waits for the client's delayed acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (("TCP_NOTSENT_LOWAT", _NOT_SENT_BYTES), ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MS)):
        if hasattr(socket, option):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return listener


async def _serve(app: AsgiApp, listener: socket.socket) -> bool:
    """Serves until a signal ends it. Whether running answers were let end."""
    import uvicorn

    class Server(uvicorn.Server):
        """Ends at once at the second signal, whichever it is: uvicorn does so for SIGINT only."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.force_exit = self.force_exit or self.should_exit
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    if hasattr(signal, "SIGUSR2"):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, lambda: print(json.dumps(app.figures()), flush=True))
    host, port = listener.getsockname()[:2]
    print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    server = Server(config)
    await server.serve(sockets=[listener])
    return not server.force_exit


if __name__ == "__main__":
    sys.exit(main())
