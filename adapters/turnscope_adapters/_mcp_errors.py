"""What goes wrong with a tool server, as a tree beside the kernel's. Above: everything of MCP.

::

    ServerError                  a tool server, or the way to it, failed
    ├── ServerUnavailable        it did not start, is closed, or has ended
    │   └── ServerLost           it ended under a call (also a WorkerLost: the call settles `lost`)
    ├── ServerTimeout            (also a TimeoutError) it did not start, or list its tools, in time
    └── ToolError                it said that the call failed; the text is its own

The text of an error may reach a model, so what a server writes to standard error is in none of
them, but beside it, as `ServerUnavailable.last_words`. Only the error of a start, which a program
sees and no model, repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence

from turnscope import Content, TurnscopeError, WorkerLost


class ServerError(TurnscopeError):
    """A tool server, or the way to it, failed; *server* is its name."""

    def __init__(self, message: str, *, server: str) -> None:
        super().__init__(message)
        self.server: str = server
        """The name of the `MCPServer`."""


class ServerUnavailable(ServerError):
    """The server did not start, is closed, or has ended; a call that finds it so had no effects."""

    def __init__(self, message: str, *, server: str, last_words: str = "") -> None:
        super().__init__(message, server=server)
        self.last_words: str = last_words
        """The end of what it wrote to standard error, as far as that was read."""


def closed(server: str) -> ServerUnavailable:
    """The error of who asks a server outside of its block."""
    return ServerUnavailable(
        f"the server {server!r} is closed: its tools work inside its `async with`", server=server
    )


class ServerLost(ServerUnavailable, WorkerLost):
    """The server ended, or the connection to it broke, under a call: its effects are unknown."""


class ServerTimeout(ServerError, TimeoutError):
    """The server did not start, or did not list its tools, within ``start_timeout``."""


class ToolError(ServerError):
    """The server said that the call failed, in its own words."""

    def __init__(
        self, message: str, *, server: str, content: Sequence[Content] = (), code: int | None = None
    ) -> None:
        super().__init__(message, server=server)
        self.content: tuple[Content, ...] = tuple(content)
        """All that it said; the message is the text of it."""
        self.code: int | None = code
        """JSON-RPC's, if it refused the call itself; None if the tool failed."""
