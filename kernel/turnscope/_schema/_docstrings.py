"""What a docstring says about a tool: its own text, and one text for each parameter.

Above: `_schema`, which puts these texts before the model. Below: docstring_parser, which knows the
Google, NumPy, reST and Epydoc styles; it is imported at the first docstring, because it costs more
time to load than a program without tools should pay. This file knows nothing of schemas or types.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from docstring_parser import Docstring

# The rest of the text stays as its author wrote it, so the sections are cut out of the text:
# docstring_parser's own `compose` writes the other sections anew, and not as they were.
_GOOGLE: Final = re.compile(
    r"^(?:Args|Arguments|Parameters|Params|Keyword (?:Args|Arguments)|Other Parameters):[ \t]*\n"
    r"(?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)*",
    re.MULTILINE,
)
_NUMPY: Final = re.compile(
    r"^(?:Other )?Parameters[ \t]*\n-{3,}[ \t]*\n(?:(?!\S.*\n-{3,}[ \t]*$).*(?:\n|\Z))*?"
    r"(?=\S.*\n-{3,}[ \t]*$|\Z)",
    re.MULTILINE,
)
_FIELDS: Final = re.compile(
    r"^[:@](?:param|parameter|arg|argument|key|keyword|type)\b.*(?:\n|\Z)"
    r"(?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n(?=[ \t]+\S))*",
    re.MULTILINE,
)


def description_of(fn: Callable[..., object]) -> str:
    """Tell what *fn* does, for the model: its docstring without the parameters, "" if none."""
    text = _text(fn)
    parsed = _parsed(text)
    if parsed is None or not _parameters(parsed):
        return text
    style = parsed.style
    section = {"GOOGLE": _GOOGLE, "NUMPYDOC": _NUMPY}.get(style.name if style else "", _FIELDS)
    return re.sub(r"\n{3,}", "\n\n", section.sub("", text)).strip()


def texts_of(fn: Callable[..., object]) -> dict[str, str]:
    """Map each parameter that the docstring of *fn* describes to its description."""
    parsed = _parsed(_text(fn))
    return {} if parsed is None else _parameters(parsed)


def _parameters(parsed: Docstring) -> dict[str, str]:
    return {
        each.arg_name.lstrip("*"): each.description.strip()
        for each in parsed.params
        # "attribute" sections describe what a class holds, not what a call takes
        if each.description and each.args[0] != "attribute"
    }


def _parsed(text: str) -> Docstring | None:
    if not text:
        return None
    import docstring_parser

    try:
        return docstring_parser.parse(text)
    except docstring_parser.ParseError:
        # A text in no style that is known is still a description.
        return None


def _text(fn: Callable[..., object]) -> str:
    if inspect.isclass(fn):
        constructor = vars(fn).get("__init__")
        texts = [inspect.getdoc(fn), constructor and inspect.getdoc(constructor)]
        return "\n\n".join(text.strip() for text in texts if text)
    text = inspect.getdoc(function_of(fn))
    if text is None and not inspect.isroutine(fn) and not isinstance(fn, functools.partial):
        text = inspect.getdoc(type(fn))  # an object that can be called
    return (text or "").strip()


def function_of(fn: Callable[..., object]) -> Callable[..., object]:
    """Find the function that runs when *fn* is called: a method's, a partial's, an object's."""
    inner = _inner(fn)
    while inner is not None:
        fn, inner = inner, _inner(inner)
    return fn


def _inner(fn: Any) -> Callable[..., object] | None:
    if isinstance(fn, functools.partial):
        return cast("functools.partial[object]", fn).func
    bound = cast("Callable[..., object] | None", getattr(fn, "__func__", None))
    if bound is not None or inspect.isroutine(fn):
        return bound
    return cast("Callable[..., object]", type(fn).__call__)
