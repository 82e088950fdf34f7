"""Roles: what a member of a run may do."""

from __future__ import annotations

import enum


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


ALL_ROLES = Role(31)
SELF_CHOSEN = Role.TRAINER | Role.VALIDATOR | Role.OBSERVER
"""What a JOIN may ask for; the rest is granted by an admin."""
