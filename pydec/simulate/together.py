"""Plain gossip of models that all learn in step: no event, no packet, no object a peer.

The numbers are those of ``dpsgd`` without compression, with the kernels and in the order of the peers one by
one: gradients of many models at once, one call of the optimiser's kernels for all rows, and ``Mixing``'s
rounds. Times are theirs, too, but that a link receives what is of one round before what is of the next.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pydec import kernels
from pydec.errors import NonFiniteError
from pydec.gossip.memory import aligned_floats
from pydec.optim.plan import Plan
from pydec.simulate.batched import Batched, descend
from pydec.simulate.mixing import Mixing
from pydec.simulate.network import Link
from pydec.simulate.observer import Row
from pydec.simulate.paces import Paces
from pydec.train.config import TrainConfig


class Together:
    """All peers, step by step.

    Args:
        config: resolved.
        plan: how they gossip.
        learners: with ``Batched.uniform``; its memory is taken here.
        link: of every peer.
        paces: how long steps take.

    Attributes:
        mixing: the models and the virtual clock.
        waited_s: of every peer, shape (n,).
    """

    def __init__(self, config: TrainConfig, plan: Plan, learners: Batched, link: Link, paces: Paces) -> None:
        learners.allocate()
        size = len(learners.x)
        learners.x[:] = learners.initial
        self.mixing = Mixing(plan.topology, learners.parameters, config.seed, link, paces, learners.x)
        self.waited_s = np.zeros(size)
        self._config, self._plan, self._learners, self._paces = config, plan, learners, paces
        self._rows = [learners.batches(rank).rows() for rank in range(size)]
        (group,) = learners.groups
        self._group = dict(group)
        self._velocity = aligned_floats(learners.g.size if group["momentum"] else 0)
        self._losses: list[float] = []

    def run(self, show: Callable[[Row], None]) -> list[Row]:
        """Take all steps; rows as of ``Observer``.

        Raises:
            NonFiniteError: a gradient, unless the policy is to go on.
        """
        config, early = self._config, self._plan.algorithm.order == "cta"
        local = self._plan.local_steps
        rows: list[Row] = []
        for step in range(config.steps):
            begun_s = self.mixing.ready_s
            self.mixing.ready_s = begun_s + self._paces.seconds(step)
            self._differentiate()
            if early and step % local == 0:  # packets have travelled since the step began, but for the first
                self._mix(begun_s if step else None)
            self._descend(config.rate(step) / config.lr)
            due = (step + 1) % local == 0
            if due and not early:
                self._mix()
            if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
                rows.append(self._row(step + 1, under_way=due and early))
                show(rows[-1])
        if early and config.steps % local == 0:
            self._mix()
        return rows

    def _mix(self, sent_s: NDArray[np.float64] | None = None) -> None:
        before_s = self.mixing.ready_s
        self.mixing.mix(sent_s)
        self.waited_s += self.mixing.ready_s - before_s

    def _differentiate(self) -> None:
        learners, x = self._learners, torch.from_numpy(self.mixing.x)
        g = torch.from_numpy(learners.g)
        self._losses = []
        for start in range(0, len(x), learners.chunk):
            part = slice(start, start + learners.chunk)
            wanted = np.concatenate([next(rows) for rows in self._rows[part]])
            self._losses += learners.derive(x[part], g[part], wanted, ())
            if learners.policy == "raise" and kernels.count_nonfinite(learners.g[part].reshape(-1)):
                bad = next(row for row in range(start, len(x)) if kernels.count_nonfinite(learners.g[row]))
                raise NonFiniteError(
                    f"the gradient of peer {bad} holds NaN or infinite values; lower the learning rate, clip "
                    "gradients, or choose --nan-policy continue"
                )

    def _descend(self, rate: float) -> None:
        self._group["lr"] = self._learners.rates[0] * rate
        descend(self.mixing.x.reshape(-1), self._learners.g.reshape(-1), self._velocity, self._group)

    def _row(self, step: int, *, under_way: bool) -> Row:
        mixing = self.mixing
        row: Row = {"step": step, "time_s": float(mixing.ready_s.max()), "peers": len(mixing.x)}
        if known := [loss for loss in self._losses if np.isfinite(loss)]:
            row["loss"] = float(np.mean(known))
        row["consensus_distance"] = mixing.distance()
        row["bytes_sent"] = mixing.bytes_sent + (mixing.coming_bytes() if under_way else 0)
        if step % self._config.eval_every == 0 and step < self._config.steps:
            row.update({f"validation_{key}": value for key, value in self._evaluate().items()})
        return row

    def _evaluate(self) -> dict[str, float]:
        return self._learners.evaluate(self.mixing.mean())

    def outcome(self) -> dict[str, float]:
        """Distance and scores at the end."""
        return {"consensus_distance": self.mixing.distance(), **self._evaluate()}
