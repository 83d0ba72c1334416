"""Starts the service under real servers, as their commands do, and talks to it over sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

SCRIPTS = Path(sysconfig.get_path("scripts"))
HERE = Path(__file__).parent
SECONDS = 60.0
"""After which something is taken to hang: far more than anything takes."""
STILL = 10
"""How many reports have to be the same before a service is taken to be at rest."""

COMMANDS: dict[tuple[str, str], list[str]] = {
    ("uvicorn", "asyncio"): ["uvicorn", "--loop=asyncio"],
    ("uvicorn", "uvloop"): ["uvicorn", "--loop=uvloop"],
    ("hypercorn", "asyncio"): ["hypercorn", "--worker-class=asyncio"],
    ("hypercorn", "trio"): ["hypercorn", "--worker-class=trio"],
}


def until(done: Callable[[], T]) -> T:
    """Wait until *done* returns something true; returns it."""
    end = time.monotonic() + SECONDS
    while not (found := done()):
        assert time.monotonic() < end, "it has not come to that"
        time.sleep(0.02)
    return found


class Upstream:
    """A server for a model's requests: it sends one line, and holds; counts who is connected."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        self.open = 0
        self.opened = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._hold, args=[connection], daemon=True).start()

    def _hold(self, connection: socket.socket) -> None:
        self.open += 1
        # A connection that is reset has ended too.
        with connection, suppress(OSError):
            connection.recv(10_000)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
                b"5\r\nHello\r\n1\r\n\n\r\n"
            )
            self.opened += 1
            while connection.recv(10_000):
                continue
        self.open -= 1


class Client:
    """One connection, with one request on it."""

    def __init__(self, address: tuple[str, int], text: str, body: bytes = b"") -> None:
        self._socket = socket.create_connection(address, SECONDS)
        length = f"content-length: {len(body)}\r\n" if body else ""
        self._socket.sendall(
            f"{text} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{length}\r\n".encode()
            + body
        )
        self.received = b""

    def read_until(self, wanted: bytes) -> None:
        while wanted not in self.received:
            more = self._socket.recv(10_000)
            assert more, f"it ended before {wanted!r}: {self.received!r}"
            self.received += more

    def read(self) -> bytes:
        """Everything, to the end of the connection."""
        while more := self._socket.recv(10_000):
            self.received += more
        self._socket.close()
        return self.received

    def leave(self) -> None:
        self._socket.close()


class Service:
    """The service in a process of its own, on loopback."""

    def __init__(self, kind: str, loop: str, folder: Path, upstream: Upstream) -> None:
        self.upstream = upstream
        self.worker_file = folder / "worker"
        # Read through another file object: one that is handed down shares its place with the child,
        # who would write where we have just read.
        self._log_path = folder / "log"
        self._log = self._log_path.open("wb")
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        server, option = COMMANDS[kind, loop]
        if server == "uvicorn":
            more = [f"--fd={listener.fileno()}", "--timeout-graceful-shutdown=1"]
        else:
            more = [f"--bind=fd://{listener.fileno()}", "--graceful-timeout=1"]
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self.process = subprocess.Popen(
            # Not `python -m`: worker processes import the main script, by its path, and hypercorn's
            # __main__ has relative imports.
            [str(SCRIPTS / server), option, *more, "service:app"],
            pass_fds=[listener.fileno()],
            env=os.environ
            | {
                "PYTHONPATH": path,
                "UPSTREAM": upstream.url,
                "WORKER_FILE": str(self.worker_file),
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        listener.close()
        self.seen: list[str] = []
        self.pid = self.process.pid
        """Of the process that serves; hypercorn's first one starts another for that."""

    def close(self) -> None:
        if self.process.poll() is None:
            for each in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                with suppress(psutil.NoSuchProcess):  # it may end with the one before it
                    each.kill()
            self.process.wait(SECONDS)
        self._log.close()

    @property
    def log(self) -> str:
        """What the service and its server have written."""
        return self._log_path.read_bytes().decode()

    def request(self, text: str, body: bytes = b"") -> Client:
        return Client(self.address, text, body)

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of the answer, unchunked as far as JSON needs it."""
        head, _, body = self.request(f"GET {path}").read().partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def report(self) -> dict[str, Any]:
        _, body = self.get("/report")
        report = json.loads(body)
        self.seen += report["ended"]
        self.pid = report["pid"]
        return report["rest"]

    def warm_up(self) -> dict[str, Any]:
        """Use each placement once; returns the report of a service at rest."""
        status, body = self.get("/fastapi/ask?prompt=fine")
        assert (status, json.loads(body)["output"]) == (200, "fine: done, done"), (body, self.log)
        last: list[dict[str, Any]] = []

        def same() -> dict[str, Any] | None:
            last.append(self.report())
            del last[:-STILL]
            still = len(last) == STILL and all(each == last[0] for each in last)
            return last[0] if still and last[0]["runs"] == 0 else None

        return until(same)

    def worker(self) -> psutil.Process:
        """The worker process that is at work."""
        until(lambda: self.worker_file.exists() and self.worker_file.read_text().endswith("\n"))
        pid = int(self.worker_file.read_text())
        self.worker_file.unlink()
        return psutil.Process(pid)

    def upstream_sockets(self) -> list[Any]:
        port = int(self.upstream.url.rstrip("/").rpartition(":")[2])
        return [
            each
            for each in psutil.Process(self.pid).net_connections("tcp")
            if each.raddr and each.raddr.port == port
        ]

    def terminate(self) -> None:
        """Ask the server to stop, as a service manager does."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until it has stopped."""
        self.process.wait(SECONDS)


@contextmanager
def serving(kind: str, loop: str) -> Iterator[Service]:
    """The service under server *kind* on event loop *loop*, until the block is left."""
    upstream = Upstream()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(kind, loop, Path(folder), upstream)
        try:
            yield service
        except BaseException:
            print(service.log)
            raise
        finally:
            service.close()
            upstream.close()
