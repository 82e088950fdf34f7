"""A change of the number of ranks of a running job: from where to where, and who joins it for that."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from pydec.comm.orders import Newcomers
from pydec.launch.relaunch import Place


@dataclass
class Change:
    """A request that was granted: from where to where, who waits for it, since when (monotonic seconds)."""

    before: Place
    after: Place
    client: socket.socket | None  # None: nobody has asked, dead ranks are replaced
    asked_s: float
    replaced: tuple[int, ...] = ()
    step: int = -1  # that it goes on from, once the ranks have left
    newcomers: Newcomers | None = None  # who are to join the running job; None: its ranks are to leave
    ordered: bool = False  # whether its ranks know of them
    why: str = ""  # nobody joins, and all start again

    @property
    def words(self) -> str:
        """What happens."""
        lost = ", ".join(map(str, self.replaced))
        why = f"replacing rank{'s' if len(self.replaced) > 1 else ''} {lost}: " if lost else ""
        return f"{why}{self.before.ranks} -> {self.after.ranks} ranks"

    def failed(self, reason: str, step: int) -> str:
        """What happens if it does not come about, for that reason, and the ranks of before go on."""
        ranks = self.after.ranks, self.before.ranks
        return f"{ranks[0]} ranks did not start ({reason}); going on with {ranks[1]} from step {step}"


def newcomers(place: Place, dead: frozenset[int], after: Place, command: tuple[str, ...]) -> Newcomers | str:
    """Who joins a running job so that it has another number of ranks.

    Args:
        place: where it runs.
        dead: ranks of it.
        after: what it is to be; there the living keep their ranks.
        command: of newcomers.

    Returns:
        Why nobody can, if so: they would be fewer, or a living rank would need another number.
    """
    numbers = [*sorted(dead), *range(place.ranks, after.ranks)]
    living = {*range(place.ranks)} - dead
    count = after.ranks - len(living)
    if count <= 0:
        return "there are to be fewer ranks"
    if count > len(numbers) or max(living) >= after.ranks:
        return f"rank {max(living)} would need another number"
    return Newcomers(command, tuple(numbers[:count]), crowd=not after.hosts)
