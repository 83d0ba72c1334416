"""A real HTTP server on loopback, in a thread of its own: for what tests let a server say.

Above: the servers of the models' tests and of MCP's, each with an app of its own. Below: hypercorn.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette

SECONDS = 30
"""After which a server is taken to hang as it starts or ends."""


class Hosted(ABC):
    """Starlette under hypercorn, on a free port, for as long as the block is open."""

    def __init__(self) -> None:
        self._started = threading.Event()
        # Listens from here on: a port that was only found to be free may be another's by then.
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @abstractmethod
    def app(self) -> Starlette:
        """What answers; made in the server's thread."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = Config()
        config.bind = [f"fd://{self._listener.detach()}"]
        config.graceful_timeout = 1
        config.errorlog = None
        self._started.set()  # who connects before it accepts has to wait, and no more
        await serve(self.app(), config, shutdown_trigger=self._stop.wait)
