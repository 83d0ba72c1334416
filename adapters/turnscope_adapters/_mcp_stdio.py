"""Messages to and from a server's standard input and output, one a line.

The official client has such a transport too. This one bounds what a line may have, ends the group
of a server that ended by itself, never lets a server that does not read hold up a call, and keeps
what a server prints out of the log. Above: `_mcp_connection`. Below: `_mcp_process`.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import anyio
import attrs
import mcp_types as types
from anyio.abc import ByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

from ._mcp_process import Command, ServerProcess

_FLUSH_SECONDS: Final = 0.5
"""What a server that does not read holds up the end of its process."""
_LAST_WORDS: Final = 4_000
_EXIT_SECONDS: Final = 1.0
"""What a server that has closed its output has to end: how it did says more than that it has."""
_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

_Items = MemoryObjectSendStream[SessionMessage | Exception]


@attrs.define(kw_only=True, eq=False)
class StdioWire:
    """The way to a server that is started for it."""

    command: Command
    name: str
    patience: float
    longest: int
    """Bytes that one message may have."""
    lasting: bool = True
    broken: str | None = None
    """Why no more can come from the server, after "it"; None as long as it can."""
    _heard: bytes = b""

    @property
    def last_words(self) -> str:
        """The end of what the server wrote to standard error."""
        return self._heard.decode("utf-8", "replace").strip()

    @asynccontextmanager
    async def open(
        self, heard: Callable[[SessionMessage], None]
    ) -> AsyncGenerator[TransportStreams]:
        """Start the server; *heard* is told of each message before the client is.

        With the block the server's process group ends, however the block is left. Raises
        ServerUnavailable if it cannot be started.
        """
        server = await self.command.start(self.name)
        try:
            items, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            # Without a bound: a call that is cancelled must not wait until the server reads.
            outgoing, messages = anyio.create_memory_object_stream[SessionMessage](math.inf)
            written = anyio.Event()
            async with anyio.create_task_group() as group, items, incoming, outgoing, messages:
                group.start_soon(self._read, server, items, heard)
                group.start_soon(self._write, server, messages, items, written)
                if server.process.stderr is not None:
                    group.start_soon(self._listen, server.process.stderr)
                try:
                    yield incoming, outgoing
                finally:
                    with anyio.CancelScope(shield=True):
                        incoming.close()
                        outgoing.close()
                        with anyio.move_on_after(_FLUSH_SECONDS):
                            await written.wait()
                        await server.end(self.patience)
                    group.cancel_scope.cancel()
        finally:
            server.kill()  # whatever went wrong above

    async def _read(
        self, server: ServerProcess, items: _Items, heard: Callable[[SessionMessage], None]
    ) -> None:
        stdout = cast("ByteReceiveStream", server.process.stdout)
        buffer, searched = bytearray(), 0
        try:
            while True:
                buffer += await stdout.receive()
                while (end := buffer.find(b"\n", searched)) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    searched = 0
                    for message in _read_line(line):
                        heard(message)
                        await items.send(message)
                searched = len(buffer)
                if searched > self.longest:
                    self.broken = f"sent a message of more than {self.longest:,} bytes"
                    break
        except _GONE:
            pass
        await self._lost(server, items)
        with anyio.CancelScope(shield=True):  # until the process is ended, above
            try:
                while True:  # a server that has more to say than a pipe holds could not end
                    await stdout.receive()
            except _GONE:
                pass

    async def _write(
        self,
        server: ServerProcess,
        messages: MemoryObjectReceiveStream[SessionMessage],
        items: _Items,
        written: anyio.Event,
    ) -> None:
        assert server.process.stdin is not None
        try:
            async for each in messages:
                text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                await server.process.stdin.send(text.encode() + b"\n")
        except _GONE:
            await self._lost(server, items)
        finally:
            written.set()

    async def _lost(self, server: ServerProcess, items: _Items) -> None:
        """Say that nothing comes any more, and why; its exit code may be known a moment later."""
        if self.broken is None:
            await server.ended(_EXIT_SECONDS)
        self.broken = self.broken or server.exit_words or "closed its output"
        items.close()

    async def _listen(self, stderr: ByteReceiveStream) -> None:
        try:
            while True:
                self._heard = (self._heard + await stderr.receive())[-_LAST_WORDS:]
        except _GONE:
            pass


def _read_line(line: bytes) -> list[SessionMessage]:
    """The message of a line; none, if a server has printed something else there.

    What has the id of a request, and is no answer to it, is made an error: or the call would wait.
    """
    try:
        return [SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))]
    except ValueError:
        pass
    try:
        read: Any = json.loads(line)
    except (ValueError, RecursionError):
        return []
    if not isinstance(read, dict):
        return []
    about = cast("dict[str, Any]", read)
    if not isinstance(about.get("id"), int | str) or "method" in about:
        return []
    said = types.ErrorData(code=types.PARSE_ERROR, message="it answered what is no answer")
    return [SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=about["id"], error=said))]
