"""Pure functions for tools, to be run anywhere. Cheap to import, for the worker processes' sake."""

from __future__ import annotations


def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def inverse(n: int) -> dict[str, float]:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return {"inverse": 1 / n}


def spelled(n: int) -> str:
    return " ".join(str(n))


FUNCTIONS = (fibonacci, divisors, inverse, spelled)
