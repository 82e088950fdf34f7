"""How far a run has come."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pydec.train.evaluate import Score


@dataclass
class Progress:
    """What is known of a run at any moment; the summary of an interrupted run is made of it.

    Attributes:
        step: steps done.
        loss: mean over ranks of the training loss since the last report.
        consensus_distance: at the last report.
        bytes_sent: by all ranks for training, at the last report.
        score: of the averaged model at the last evaluation.
        score_step: when that was.
        early: (step, consensus distance) of a report between a quarter and half of the way to the last one;
            step 0 if there is none.
        later: the one that becomes it when twice its steps are done.
        growth: consensus distance at the last report, in units of the early one; NaN if there is none.
    """

    step: int = 0
    loss: float = math.nan
    consensus_distance: float = math.nan
    bytes_sent: int = 0
    score: Score = field(default_factory=dict)
    score_step: int = 0
    early: tuple[int, float] = (0, math.nan)
    later: tuple[int, float] = (0, math.nan)
    growth: float = math.nan

    def measured(self, distance: float) -> None:
        """Take the consensus distance at this step."""
        self.consensus_distance = distance
        if self.step >= 2 * self.later[0]:
            self.early, self.later = self.later, (self.step, distance)
        self.growth = distance / self.early[1] if self.early[1] > 0 else math.nan
