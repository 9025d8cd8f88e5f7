"""Servers side by side in one run: requests a second by wrk, and the memory of 200 slow readers.

`python bench/compare.py [ROUNDS] [SECONDS]` writes a table in Markdown. The servers take turns, so that what else the
machine does meets all of them; what is told is the median of the rounds.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVERS = ("millpond", "starlette", "millpond-wsgi", "piping")
SIZES = {"4 KB": 4 * 1024, "500 KB": 500 * 1024, "50 MB": 50 * 1024 * 1024}
READERS = 200


def main(rounds: int, seconds: int) -> None:
    """Runs everything and prints it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for name, size in SIZES.items():
            (Path(folder) / file_of(name)).write_bytes(os.urandom(size))
        running = {name: stack.enter_context(Server(name, folder)) for name in SERVERS}
        measured: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for size in SIZES:
                for name, server in running.items():
                    measured.setdefault((size, name), []).append(server.requests_a_second(size, seconds))
        print(f"| requests a second | {' | '.join(SERVERS)} |\n|---|{'---|' * len(SERVERS)}")
        for size in SIZES:
            medians = [statistics.median(measured[size, name]) for name in SERVERS]
            told = [f"{median:,.0f}" if median >= 100 else f"{median:.1f}" for median in medians]
            print(f"| {size} | {' | '.join(told)} |")
        print(f"\n| {READERS} slow readers of 50 MB | {' | '.join(SERVERS)} |\n|---|{'---|' * len(SERVERS)}")
        held = [server.slow_readers() for server in running.values()]
        print(f"| process, MB | {' | '.join(f'{user:.1f}' for user, _ in held)} |")
        print(f"| kernel, MB | {' | '.join(f'{kernel:.1f}' for _, kernel in held)} |")


class Server:
    """A running server."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.folder = name, folder

    def __enter__(self) -> Server:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        script = Path(__file__).with_name("servers.py")
        command = [sys.executable, str(script), self.name, self.folder, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while self.process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not begin")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def requests_a_second(self, size: str, seconds: int) -> float:
        """By 16 connections of wrk."""
        url = f"http://127.0.0.1:{self.port}/media/{file_of(size)}"
        command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--timeout", "30s", url]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in told:
            raise RuntimeError(told)
        # The rate that wrk tells, it computes of answers that ended in time.
        found = re.search(r"Requests/sec:\s*([\d.]+)", told)
        if not found:
            raise RuntimeError(told)
        return float(found[1])

    def slow_readers(self) -> tuple[float, float]:
        """What the process has more, and the kernel, with readers that have taken a kilobyte each: in MB."""
        before = self._memory()
        with contextlib.ExitStack() as stack:
            for _ in range(READERS):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", self.port))
                client.sendall(f"GET /media/{file_of('50 MB')} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
                client.recv(1024)
            settled = self._memory()
            while (now := self._memory()) != settled:
                settled = now
                time.sleep(1)
            return settled[0] - before[0], settled[1] - before[1]

    def _memory(self) -> tuple[float, float]:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s*(\d+) kB", status)
        sockets = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
        if not found or not sockets:
            raise RuntimeError("there is no /proc")
        return int(found[1]) / 1024, int(sockets[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


def file_of(size: str) -> str:
    """The file of that size."""
    return size.replace(" ", "-") + ".bin"


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3] or ("3", "3")))
