"""Roles: what a member of a run may do."""

from __future__ import annotations

import enum
import re


class Role(enum.IntFlag):
    """A set of roles; a member may have several."""

    ADMIN = 1
    """Changes configuration and roles."""
    DATA_OWNER = 2
    """Registers data sets and grants access to its own."""
    TRAINER = 4
    """Takes part in gossip and reads what it was granted."""
    VALIDATOR = 8
    """Votes and proposes, by its stake."""
    OBSERVER = 16
    """Sees metrics and the ledger, no tensors."""

    @property
    def names(self) -> str:
        """Such as ``trainer, validator``; ``none`` for no role."""
        found = [role.name.lower().replace("_", "-") for role in Role if role in self and role.name]
        return ", ".join(found) or "none"

    @classmethod
    def parse(cls, names: list[str]) -> Role:
        """The set of these names.

        Raises:
            ValueError: an unknown name.
        """
        known = {role.names: role for role in cls}
        for name in names:
            if name not in known:
                raise ValueError(f"unknown role {name!r}; known: {', '.join(known)}")
        found = cls(0)
        for name in names:
            found |= known[name]
        return found


_RANKS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")
_MOST_RANKS = 1 << 16


def of_ranks(words: str) -> dict[int, Role]:
    """Roles by rank, such as ``0=admin+trainer+validator,4-5=observer``.

    Raises:
        ValueError: words of another form, an unknown role, or a rank that is named twice.
    """
    found: dict[int, Role] = {}
    for item in words.split(",") if words else ():
        ranks, _, names = item.partition("=")
        range_ = _RANKS.fullmatch(ranks.strip())
        if range_ is None or not names:
            raise ValueError(f"expected RANK=ROLE+ROLE or FIRST-LAST=ROLE, got {item!r}")
        first, last = int(range_[1]), int(range_[2] or range_[1])
        if not first <= last < _MOST_RANKS:
            raise ValueError(f"{ranks} are no ranks: the first comes first, and all are below {_MOST_RANKS}")
        role = Role.parse([name.strip() for name in names.split("+")])
        for rank in range(first, last + 1):
            if rank in found:
                raise ValueError(f"rank {rank} is named twice")
            found[rank] = role
    return found


ALL_ROLES = Role(31)
SELF_CHOSEN = Role.TRAINER | Role.VALIDATOR | Role.OBSERVER
"""What a JOIN may ask for; the rest is granted by an admin."""
