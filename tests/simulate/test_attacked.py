"""Every robust rule under every attack, by the mixers of real runs: none ends a run or spoils a model."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.aggregate.attacks import attacks
from pydec.gossip.base import robust_rules
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario
from pydec.train.config import TrainConfig
from tests.simulate.toy import BLOBS

RULES = [*robust_rules, "trimmed-mean", "nnm+krum"]
# Spectral attacks need a graph that stays, and rpel one that does not.


@pytest.mark.filterwarnings("ignore::pydec.errors.RobustnessWarning")
@pytest.mark.filterwarnings("ignore::pydec.errors.HeterogeneityWarning")
@pytest.mark.parametrize(
    ("rule", "attack"),
    [(rule, attack) for rule in RULES for attack in attacks if (rule, attack) != ("rpel", "spectral")],
)
def test_no_attack_ends_a_run_or_spoils_a_model(rule, attack):
    config = TrainConfig(
        BLOBS,
        topology="epidemic:s=6" if rule == "rpel" else "complete",
        steps=4,
        batch_size=4,
        threads=1,
        byzantine="1,4",
        attack=attack,
        aggregate="rpel:horizon=4" if rule == "rpel" else rule,
        compressor="none" if attack == "huge" else "int8",
    )
    outcome = Simulation(Scenario(9, config)).run(keep=True)
    honest = np.stack([model for rank, model in outcome.models.items() if rank not in (1, 4)])
    assert len(honest) == 7
    assert np.abs(honest).max() < 20.0
