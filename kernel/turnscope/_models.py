"""Which model answers, and its opening: found by name or handed in, opened once for a kernel.

Above: the kernel. Below: the port, and `_guests`, which opens and closes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from ._guests import Guest
from .abc import Model, OutputSchema, TakesOutput

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

GROUP: Final = "turnscope.models"
_NEEDS_NONE: Final = Guest(None, "model")


@lru_cache(maxsize=1)
def _offered() -> dict[str, Callable[[], Callable[[str], Model]]]:
    from importlib.metadata import entry_points  # here, as in `_places`: it takes 25 ms

    return {point.name: point.load for point in entry_points(group=GROUP)}


def checked(model: object) -> Model:
    """*model*, if it is one; raises TypeError if not."""
    # A class has stream() too, and is what somebody hands in who forgot to call it. And not by
    # isinstance(model, Model): to ask a runtime protocol takes 5 us, of the 160 of a short run.
    if not callable(getattr(model, "stream", None)) or isinstance(model, type):
        raise TypeError(
            f"{model!r} is no model: that is an object with stream(request), as in "
            "turnscope.abc.Model"
        )
    return cast("Model", model)


def name_of(model: object) -> str | None:
    """What *model* calls itself, if it does."""
    return _said(model, "name")


def provider_of(model: object) -> str | None:
    """Whose API *model* speaks, if it says so."""
    return _said(model, "provider")


def _said(model: object, what: str) -> str | None:
    word = getattr(model, what, None)
    return word if isinstance(word, str) else None


def takes_output(model: object, output: OutputSchema) -> bool:
    """Whether *model* says that its API can hold an answer to *output*."""
    return isinstance(model, TakesOutput) and model.takes_output(output)


def model_named(text: str) -> Model:
    """A new model, of the API and the name that *text* says; raises ValueError if there is none."""
    api, colon, name = text.partition(":")
    make = _offered().get(api)
    if not colon or not name or make is None:
        known = ", ".join(f"{api}:NAME" for api in sorted(_offered())) or "none"
        raise ValueError(
            f"no model is named {text!r} (there are: {known}): hand in an object, or install the "
            "package that offers it"
        )
    return checked(make()(name))


class Models:
    """The models of one kernel: those made of names, and those that are open."""

    def __init__(self, standing_in: Model | str | None) -> None:
        self._standing_in = standing_in
        self._named: dict[str, Model] = {}
        self._guests: dict[int, tuple[Model, Guest]] = {}

    def find(self, of_run: Model | str | None, of_agent: Model | str | None) -> Model:
        """The model of a run: its own, or the kernel's, or the agent's, in this order.

        Raises ValueError if there is none, or none of that name; TypeError if it is no model.
        """
        model: Model | str | None = None
        for model in (of_run, self._standing_in, of_agent):
            if model is not None:  # not by its truth: a model may have a length
                break
        if model is None:
            raise ValueError(
                "this agent has no model: give it one, Agent(model=...), or the run, "
                "kernel.run(agent, prompt, model=...)"
            )
        if isinstance(model, str):
            return self._by_name(model)
        return checked(model)

    def _by_name(self, text: str) -> Model:
        model = self._named.get(text)
        if model is None:
            model = self._named[text] = model_named(text)
        return model

    def guest(self, model: Model, hosts: TaskGroup, closing: anyio.Event) -> Guest:
        """The opening of *model*, under way if it needs one."""
        if not isinstance(model, AbstractAsyncContextManager):
            return _NEEDS_NONE
        known = self._guests.get(id(model))
        if known is None:
            manager: AbstractAsyncContextManager[Any, Any] = model
            # The model is kept with it, so that its id stays its own.
            known = self._guests[id(model)] = (model, Guest(manager, type(model).__name__))
        guest = known[1]
        guest.open(hosts, closing)
        return guest

    def give_up(self) -> None:
        """Told that the kernel closes: stop opening what nobody will use."""
        for _, guest in self._guests.values():
            guest.give_up()
