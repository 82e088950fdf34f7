"""What the ranks agree on before they gossip, and the combinations that cannot work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pydec.compress.base import Compressor
from pydec.errors import ConfigError, PeerLost
from pydec.gossip import Algorithm
from pydec.gossip.control import Control
from pydec.gossip.exchange import Late, Lost
from pydec.gossip.switch import refuse_auto
from pydec.topology.base import Topology


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise ConfigError unless ``value`` is one of a Literal's."""
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


@dataclass(frozen=True)
class Plan:
    """How the ranks gossip, all of it the same on every rank.

    Args:
        topology: who averages with whom.
        compressor: how models travel.
        algorithm: the equations.
        local_steps: local steps before a round.
        control: how many rounds follow.
        late: what to do when a neighbour misses the deadline.
        estimate: whether the consensus distance is estimated in every round.
        background: whether packets move in a thread beside the computation.
        lost: what to do when a neighbour is dead; None leaves it out wherever the equations allow.
    """

    topology: Topology
    compressor: Compressor
    algorithm: Algorithm
    local_steps: int
    control: Control
    late: Late
    estimate: bool
    background: bool = False
    lost: Lost | None = None

    def check(self) -> None:
        """Raise ConfigError for what does not go together."""
        name = type(self.algorithm).__name__
        if self.local_steps != int(self.local_steps) or self.local_steps < 1:
            raise ConfigError(f"local_steps must be an integer of at least 1, got {self.local_steps!r}")
        self.algorithm.check(self.topology, self.compressor)
        if self.late == "drop" and not self.algorithm.tolerates_loss:
            raise ConfigError(
                f"late='drop' leaves out packets that {name} cannot do without: its sums over the ranks "
                "would no longer hold; use late='raise', or algorithm='dpsgd' or 'sgp'"
            )
        if self.measures and self.late == "drop":
            raise ConfigError(
                "an estimated consensus distance and adaptive mixing need every packet; use late='raise'"
            )
        if self.measures and self.algorithm.robust:
            raise ConfigError(
                f"{name} bounds what neighbours do, so a round does not show how far apart ranks are, and "
                "liars would be believed; use estimate=False and mixing='fixed', and consensus_distance()"
            )
        if self.lost == "drop" and not self.outlives:
            why = "mixing is measured" if self.measures else f"{name} needs every rank"
            raise ConfigError(
                f"lost='drop' goes on without ranks that died, and {why}; use lost='raise', or "
                "algorithm='dpsgd' with mixing='fixed' and estimate=False"
            )
        if self.background and self.algorithm.order != "cta":
            raise ConfigError(
                f"background=True moves packets while gradients are computed, and {name} sends none "
                "then; use order='cta' where the algorithm has it, or leave it out"
            )
        if self.algorithm.asynchronous:
            refuse_auto(name, self.compressor)
        if self.algorithm.asynchronous and (self.measures or self.control.most > 1):
            raise ConfigError(
                f"{name} has no rounds that all ranks share, so none can be measured or repeated; use "
                "mixing='fixed' and estimate=False, or an algorithm with rounds, such as 'dpsgd'"
            )
        if self.algorithm.averages == "gradients":
            if self.local_steps > 1 or self.measures or self.control.most > 1:
                raise ConfigError(
                    "allreduce averages gradients in every step and has no local steps, rounds or estimates; "
                    "use local_steps=1 and mixing='fixed', or algorithm='diloco'"
                )
            return
        if self.algorithm.order == "cta" and self.control.most > 1:
            raise ConfigError(
                f"order='cta' hides one round behind the gradient and cannot do {self.control.most}; use "
                "order='atc', or mixing='fixed'"
            )
        if self.control.most > 1 and self.algorithm.rounds(self.topology) > 1:
            raise ConfigError(f"{name} mixes exactly already; use mixing='fixed'")

    def check_change(self) -> None:
        """Raise ConfigError where no rule says what a change of the members does to the algorithm's state."""
        name = type(self.algorithm).__name__
        if self.algorithm.after_death == "stop":
            raise ConfigError(
                f"{name} needs the ranks that it has begun with, and the members change; use "
                "algorithm='dpsgd', or 'choco-diloco' for compressed deltas"
            )
        if self.algorithm.asynchronous and not self.algorithm.tolerates_loss:
            raise ConfigError(
                f"{name} averages two by two, and a change of the members would cut averages in half, which "
                "moves the mean; use algorithm='adsgd'"
            )

    @property
    def outlives(self) -> bool:
        """Whether training can go on without a rank; measured rounds hear all ranks in the end."""
        return self.algorithm.after_death != "stop" and not self.measures

    def explained(self, error: PeerLost) -> PeerLost:
        """The error of a dead neighbour, with what to do about it where the plan needs every rank."""
        if self.outlives or "; use " in str(error):
            return error
        why = "mixing that is measured" if self.measures else type(self.algorithm).__name__
        what = str(error).removeprefix(f"rank {error.peer} ")
        return PeerLost(
            error.peer,
            f"{what}; {why} needs every rank: use algorithm='dpsgd', mixing='fixed' and estimate=False to go "
            "on without those that die",
        )

    @property
    def losing(self) -> Lost:
        """What is done when a neighbour is dead."""
        return self.lost or ("drop" if self.outlives else "raise")

    @property
    def measures(self) -> bool:
        """Whether mixing is measured."""
        return self.estimate or self.control.adapts
