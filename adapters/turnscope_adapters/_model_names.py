"""``--model``: a model by name, at a URL, or an object in a module.

Above: `_run_command`. Below: `_targets`, and `openai`, which is imported only for a URL, because it
needs an extra; by a name, the kernel finds a model.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Final
from urllib.parse import unquote

from turnscope.abc import Model

from ._errors import BadUsage
from ._targets import named

_WAYS: Final = (
    "write openai:NAME, openai-responses:NAME or anthropic:NAME, the URL of a server that speaks "
    "Chat Completions, as http://127.0.0.1:8080/v1#NAME, or MODULE:NAME of a model of your own"
)
_EXTRAS: Final = {"anthropic": "anthropic", "openai": "openai", "openai-responses": "openai"}
"""The extra that the models of each API of ours need."""
NAMELESS: Final = "default"
"""The model's name in requests to a URL that says none: a server with one model ignores it."""


def model_of(text: str) -> Model | str:
    """What *text* names: a model, or what the kernel finds one by.

    Raises BadUsage if it names none, or what is needed for it is not installed; Broken if its
    module cannot be imported.
    """
    if text.startswith(("http://", "https://")):
        return _at(text)
    api, colon, name = text.partition(":")
    if not (api and colon and name):
        raise BadUsage(f"--model {text!r} names no model: {_WAYS}")
    if api in _EXTRAS:
        _check_client(_EXTRAS[api])
        return text
    if api in entry_points(group="turnscope.models").names:
        return text
    try:
        found = named(text)
    except BadUsage as exc:
        raise BadUsage(f"--model {text!r} names no model: {exc}; {_WAYS}") from exc
    if isinstance(found, type) or not isinstance(found, Model):
        sort = "a class" if isinstance(found, type) else f"a value of type {type(found).__name__}"
        raise BadUsage(
            f"--model {text!r} leads to {sort}: a model is an object with stream(request)"
        )
    return found


def _at(url: str) -> Model:
    _check_client("openai")
    from .openai import OpenAIChat

    base_url, _, name = url.partition("#")
    try:
        return OpenAIChat(unquote(name) or NAMELESS, base_url=base_url)
    except ValueError as exc:  # which does not repeat a password in the URL, and so nor does this
        raise BadUsage(f"--model: {exc}") from exc


def _check_client(extra: str) -> None:
    if find_spec("httpx2") is None:
        raise BadUsage(f"httpx2 is not installed: pip install 'turnscope[{extra}]'")
