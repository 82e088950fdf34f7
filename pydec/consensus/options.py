"""Options of a run that an admin may change by CONFIG, and what each may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pydec.consensus.rules import ADMISSIONS, Rules
from pydec.errors import TransactionError

_SPECIFICATION = re.compile(r"[a-z0-9][A-Za-z0-9._+:=,/-]*")


def _specification(value: str) -> bool:
    return _SPECIFICATION.fullmatch(value) is not None


def _whole(least: int, most: int) -> Callable[[str], bool]:
    def fits(value: str) -> bool:
        return value.isdigit() and str(int(value)) == value and least <= int(value) <= most

    return fits


OPTIONS: dict[str, tuple[Callable[[str], bool], str]] = {
    "admission": (ADMISSIONS.__contains__, " or ".join(ADMISSIONS)),
    "algorithm": (_specification, "a specification such as dpsgd"),
    "aggregate": (_specification, "a specification such as trimmed-mean:f=1"),
    "compressor": (_specification, "a specification such as int8"),
    "f": (_whole(0, 1 << 16), "a whole number in [0, 65536]"),
    "joins_per_period": (_whole(1, 1 << 16), "a whole number in [1, 65536]"),
    "margin_rounds": (_whole(0, 1 << 32), "a whole number in [0, 2^32]"),
    "topology": (_specification, "a specification such as base-k:k=1"),
}
"""By name: what accepts a value, and what to say if it does not. Whether a specification names a part that
exists is for the nodes' versions to decide, not for the chain."""


def check(pairs: Mapping[str, str]) -> None:
    """Check names and values.

    Raises:
        TransactionError: an unknown name, or a value that does not fit.
    """
    for name, value in pairs.items():
        if name not in OPTIONS:
            raise TransactionError(f"unknown option {name!r}; known: {', '.join(OPTIONS)}")
        accepts, expected = OPTIONS[name]
        if not accepts(value):
            raise TransactionError(f"option {name} must be {expected}, got {value!r}")


def number(pairs: Mapping[str, str], rules: Rules, name: str) -> int:
    """A rule that an option may override."""
    return int(pairs[name]) if name in pairs else int(getattr(rules, name))
