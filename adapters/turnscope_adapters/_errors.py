"""The two ways in which a command ends without its work. Above: all; `cli` has the exit codes."""

from __future__ import annotations


class BadUsage(Exception):
    """What was typed cannot be done; the sentence says what can. Exit code 2."""


class Broken(Exception):
    """What was asked for is right, but something else is broken; the sentence names it. Code 1."""
