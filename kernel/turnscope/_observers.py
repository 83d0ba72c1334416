"""Who is told of every event of a kernel. Above: the kernel. Below: the port, and the events.

Those are loaded with the first kernel that has an observer (and with runs, which are observed by
who iterates over them): their nine classes are a twentieth of the import of turnscope, and a
service that observes nothing never makes one. Who tells of a turn finds them in its facts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .abc import Observer

if TYPE_CHECKING:
    from .events import RunEvent


class Observers:
    """The observers of one kernel; raises TypeError for what is none."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        for observer in self._observers:
            if not isinstance(observer, Observer):
                raise TypeError(f"{observer!r} is no observer: it has no method observe(event)")
        self.any = bool(self._observers)
        """Whether anybody is told: without, no events are made."""
        self.kinds: Any = None
        """The room of the events of turns, if anybody is told."""
        if self.any:  # now, so that no turn waits for it
            from . import _turn_events

            self.kinds = _turn_events
        self._silenced: set[int] = set()

    def tell(self, event: RunEvent) -> None:
        """Tell every observer; one that raises is logged once and told on."""
        for observer in self._observers:
            try:
                observer.observe(event)
            except Exception:
                if id(observer) not in self._silenced:
                    self._silenced.add(id(observer))
                    import logging  # here, because it is 3 % of the import of turnscope

                    logging.getLogger("turnscope").exception(
                        "observer %s failed; its further failures are not logged",
                        type(observer).__name__,
                    )
