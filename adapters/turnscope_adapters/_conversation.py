"""``--history FILE``: a conversation that is read before a run, and stored after it.

Above: `_run_command`. Below: `turnscope.History`, whose JSON is what the file holds.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress

from turnscope import History, UserMessage

from ._errors import BadUsage, Broken


class Conversation:
    """The file at *path*, which need not be there yet.

    Raises BadUsage if it holds something else than a conversation, or cannot be written later:
    before any work, because an answer that cannot be kept has been paid for.
    """

    def __init__(self, path: str) -> None:
        self._shown = repr(path)
        try:
            self._path = os.path.realpath(path)  # a link stays one
            self.history: History | None = self._read()
            """What the file holds; None if there is no file yet."""
        except OSError as exc:
            raise BadUsage(f"{self._shown} cannot be read: {exc.strerror}") from exc
        except ValueError as exc:
            raise BadUsage(
                f"{self._shown} holds no conversation, and stays as it is: {exc}; name another "
                "file for --history"
            ) from exc
        folder = os.path.dirname(self._path)
        if not os.path.isdir(folder):
            raise BadUsage(f"there is no folder for {self._shown}: make {folder!r} first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BadUsage(
                f"{self._shown} could not be written: no files can be made in {folder!r}"
            )

    def _read(self) -> History | None:
        try:
            if not stat.S_ISREG(os.stat(self._path).st_mode):
                raise BadUsage(f"{self._shown} is not a regular file; name one for --history")
            with open(self._path, "rb") as file:
                return History.from_json(file.read())
        except FileNotFoundError:
            return None

    def store(self, history: History) -> None:
        """Put *history* in place of what the file holds, whole or not at all.

        A prompt that has no answer, not even in part, is not stored: asking again would double it.

        Raises Broken if it cannot be written; the file is then as it was.
        """
        if not history or isinstance(history[-1], UserMessage) or history == self.history:
            return
        try:
            # Half a surrogate pair is in no encoding; its escape is the same character in JSON.
            self._replace(f"{history.to_json()}\n".encode(errors="backslashreplace"))
        except OSError as exc:
            raise Broken(
                f"the conversation could not be stored in {self._shown}, which is as it was: "
                f"{exc.strerror}"
            ) from exc

    def _replace(self, content: bytes) -> None:
        folder, name = os.path.split(self._path)
        # For its owner alone, as `mkstemp` makes it, unless the file had other permissions.
        handle, temporary = tempfile.mkstemp(prefix=f".{name[:100]}.", dir=folder)
        try:
            with open(handle, "wb") as file:
                file.write(content)
                file.flush()
                with suppress(FileNotFoundError):
                    os.chmod(temporary, stat.S_IMODE(os.stat(self._path).st_mode))
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
