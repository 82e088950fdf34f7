"""The views that training goes on with: who gossips from which round on, and what is checked before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pydec.comm.view import View
from pydec.errors import ConfigError, Evicted
from pydec.optim.plan import Plan
from pydec.topology.base import topologies


class Views:
    """Changes of the members, of one optimiser; ``DecentralizedOptimizer.views`` is one.

    Args:
        rank: of this process.
        plan: how the ranks gossip.
        spec: specification of the topology; None where it was given as an object, which cannot be made again.
        nodes: of every rank of the job, for two-level topologies.

    Attributes:
        before_round: called with the number of every round before it begins; may ``change`` the view.
    """

    def __init__(self, rank: int, plan: Plan, spec: str | None, nodes: Sequence[int] | None) -> None:
        self.before_round: Callable[[int], None] | None = None
        self._rank, self._plan, self._spec, self._nodes = rank, plan, spec, nodes
        self._planned: deque[tuple[View, Plan | None]] = deque()

    def change(self, view: View) -> None:
        """Go on with other members from the round on that the view names, or at once if it has passed.

        All members of the new view call it, with the same views in the same order, before that round begins:
        then all of them switch between the same two rounds. The topology is made again for the new members,
        in their order, on the view's seed; the models stay, and what an algorithm holds of or with others
        follows its rule (docs/members.md). Asynchronous algorithms switch at their next step. A rank that is
        no member of the view raises ``Evicted`` from the step in which it would begin.

        A member that learns of a view too late switches at its next round. Until then its packets, which are
        of the old epoch, are dropped by those who are ahead: it counts as late, and nothing is averaged that
        does not belong together.

        Args:
            view: its members are ranks of this job.

        Raises:
            ConfigError: the algorithm has no rule for it, or the topology does not exist for so many members
                or cannot be made again; nothing has changed then.
        """
        plan = self._plan_of(view)
        self._planned.append((view, plan if self._rank in view.members else None))

    def due(self, round: int, *, at_once: bool) -> Iterator[tuple[View, Plan]]:
        """The view that begins with that round, or has begun before; the last one if there are several.

        Args:
            round: about to begin.
            at_once: whether views begin as soon as they are known, one after the other, as there are no
                common rounds.

        Raises:
            Evicted: this rank is not in one of them.
        """
        if self.before_round is not None:
            self.before_round(round)
        while self._planned and (at_once or self._planned[0][0].start_round <= round):
            view, plan = self._planned.popleft()
            if not at_once and self._planned and self._planned[0][0].start_round <= round:
                continue
            if plan is None:
                raise Evicted(self._rank, view.epoch)
            yield view, plan

    def _plan_of(self, view: View) -> Plan:
        plan = self._plan
        plan.check_change()
        if self._spec is None:
            raise ConfigError(
                f"the members change, and {plan.topology.name}, which was given as an object, cannot be made "
                "for others; give a specification, such as 'one-peer-exponential'"
            )
        nodes = None if self._nodes is None else [self._nodes[rank] for rank in view.members]
        made = topologies.make(self._spec, size=view.size, seed=view.seed, nodes=nodes)
        plan = replace(plan, topology=made)
        plan.check()
        return plan
