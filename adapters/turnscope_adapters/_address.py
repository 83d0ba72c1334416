"""Where a server is, and what the servers of one API have in common. Pure.

Above: `_http`, `_http_model`, and the models, each of which names its `API`. Below: nothing.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs


@attrs.frozen(kw_only=True)
class API:
    """An API that models are behind: where it is by default, and how a key is sent to it."""

    maker: str
    """Whose it is, as errors call them."""
    base_url: str
    """The maker's own server, which wants a key."""
    path: str
    """Where requests go, under a base URL."""
    key_variable: str
    """The environment's variable that holds the key."""
    url_variable: str
    """The one that holds another base URL."""
    key_header: str = "Authorization"
    key_form: str = "Bearer {}"
    """What stands in that header, with the key in place of the braces."""


@attrs.frozen
class Address:
    """Where a server is."""

    url: str
    host: str
    """As errors call it."""

    @classmethod
    def under(cls, base: str, path: str) -> Address:
        """*path* at the server whose base URL is *base*; a query in it stays.

        Raises ValueError for what is no http or https URL, or has a password in it.
        """
        try:
            parts = urlsplit(base)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            host = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
        except ValueError:  # a port that is no number, brackets that do not close
            usable, host, parts = False, "", urlsplit("")
        if "@" in parts.netloc:
            raise ValueError(
                "base_url has a user name or a password in it, which logs would show; hand in a "
                "client= that has them"
            )
        if not usable:
            raise ValueError(f"base_url is like 'https://host/v1', not {base!r}")
        stem = parts.path.rstrip("/")
        if path.startswith("/v1/"):  # with it or without it: APIs differ, and people forget which
            stem = stem.removesuffix("/v1")
        return cls(parts._replace(path=stem + path, fragment="").geturl(), host)
