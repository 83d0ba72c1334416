"""A proxy on loopback that spoils what an honest server answers, in threads of its own.

It passes requests on as they are. Of an answer it passes on what comes before the place of its
fault; there the fault begins. Above: the tests of faults on the wire. Below: sockets; it knows
nothing of HTTP but that an answer begins when a request has been sent.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Literal

import attrs

SECONDS = 20
"""After which a wait is taken to hang: far more than any takes."""


@attrs.frozen
class Fault:
    """What becomes of an answer: where, what comes there in its place, and how it ends."""

    after: bytes | None = b""
    """The bytes of the answer after which it begins; b"" is before all, None never."""
    then: Iterable[bytes] = ()
    """What is sent from there on; an endless one goes on until the client has gone."""
    end: Literal["close", "reset", "wait"] = "close"
    """What follows: the connection ends, or waits in silence for the client to go."""
    pause: float = 0.0
    """Seconds before each piece of what comes before that; 0 is all at once."""
    step: int = 1
    """Bytes of such a piece."""


@attrs.frozen
class Endless:
    """*first*, and then *piece* for ever: each time that it is iterated over."""

    piece: bytes
    first: bytes = b""

    def __iter__(self) -> Iterator[bytes]:
        yield self.first
        yield from repeat(self.piece)


class Wire:
    """The proxy to the server at *port*; a context manager that ends with the last connection.

    *fault* may be changed, or taken away by None: that is for answers that begin after it.
    """

    def __init__(self, port: int, fault: Fault | None = None) -> None:
        self.fault = fault
        self.begun = threading.Event()
        """A fault has begun: what comes before it has been sent."""
        self.sent = 0
        """How many bytes have been sent to clients."""
        self._server = port
        self._open: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes up who waits in accept
        self._listener.close()
        self._accepting.join(SECONDS)
        self.quiet()

    def quiet(self) -> None:
        """Wait until each connection has ended; AssertionError for one that a client left open."""
        for thread in list(self._open):
            thread.join(SECONDS)
        assert not [thread for thread in self._open if thread.is_alive()], "left open"
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=[client], daemon=True)
            self._open.add(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536
            )  # `sent` is not held here
            gone = threading.Event()
            asking = threading.Thread(target=_pass_on, args=[client, server, gone], daemon=True)
            asking.start()
            fault = None
            with contextlib.suppress(ConnectionError):
                while data := server.recv(65_536):
                    fault = self.fault  # which may be another when this one ends
                    if fault is not None:
                        self._spoil(fault, data, client, server, gone)
                        break
                    self._send(client, [data])
            if fault is None or fault.end != "reset":
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            asking.join()  # which the shutdown has woken up, if the client had not gone

    def _spoil(
        self,
        fault: Fault,
        data: bytes,
        client: socket.socket,
        server: socket.socket,
        gone: threading.Event,
    ) -> None:
        place = -1
        passed = b""
        while data:
            passed += data
            place = -1 if fault.after is None else passed.find(fault.after)
            good = data
            if place >= 0:
                good = passed[len(passed) - len(data) : place + len(fault.after or b"")]
            self._send(client, _slowly(good, fault, gone) if fault.pause else [good])
            if place >= 0:
                break
            data = server.recv(65_536)
        self.begun.set()
        self._send(client, fault.then)
        if fault.end == "reset":
            linger = struct.pack("ii", 1, 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.shutdown(socket.SHUT_RD)  # not the other half, which would end it in good order
        elif fault.end == "wait":
            assert gone.wait(SECONDS), "the client has left its connection open"

    def _send(self, client: socket.socket, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            client.sendall(piece)
            self.sent += len(piece)


def _slowly(data: bytes, fault: Fault, gone: threading.Event) -> Iterator[bytes]:
    """*data* piece by piece, as long as there is who takes it."""
    for place in range(0, len(data), fault.step):
        if gone.wait(fault.pause):
            return
        yield data[place : place + fault.step]


def _pass_on(client: socket.socket, server: socket.socket, gone: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65_536):
            server.sendall(data)
    gone.set()
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
