"""Virtual peers have the bits of ranks: of a real mpirun, and of the local cluster for every algorithm."""

from __future__ import annotations

import pytest

from pydec.comm.local import LocalCluster
from pydec.simulate.run import Simulation, digest
from pydec.simulate.scenario import Scenario
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from tests.simulate.toy import BLOBS, trained

SGD = {"optimizer": "sgd", "lr": 0.1}
OVER_MPI = {
    "dpsgd-int8": {"steps": 9, "seed": 3, "alpha": 1.0},
    "choco-topk": {
        "steps": 9,
        "algorithm": "choco",
        "topology": "ring",
        "compressor": "topk:fraction=0.3",
    },
    "tracking": {"steps": 6, "algorithm": "gradient-tracking", "topology": "base-k", "local_steps": 2},
}
PROGRAM = """
import sys
from pathlib import Path
from tests.simulate.toy import main
main(Path(sys.argv[1]), CONFIGS)
"""


def simulated(size: int, config: TrainConfig, **world) -> list[str]:
    outcome = Simulation(Scenario(size, config, **world)).run(keep=True)
    return [digest(outcome.models[rank]) for rank in sorted(outcome.models)]


@pytest.mark.timeout(600)
def test_four_peers_have_the_bits_of_four_ranks_over_mpi(mpirun, tmp_path):
    done = mpirun(PROGRAM.replace("CONFIGS", repr(OVER_MPI)), 4, timeout_s=560.0)
    assert done.returncode == 0, done.stderr
    for name, options in OVER_MPI.items():
        real = [(tmp_path / f"{name}-{rank}").read_text() for rank in range(4)]
        # Links and stragglers take time, and change nothing as long as everybody is waited for.
        world = {"link": "100mbit,20ms", "step_s": 0.1, "stragglers": "lognormal:0.5"}
        assert simulated(4, TrainConfig(BLOBS, **options), **world) == real, name
        assert len({*real}) > 1, "ranks that are alike by then prove little"


CASES = [
    {"algorithm": "dpsgd", "compressor": "none"},
    {"algorithm": "dpsgd:order=atc", "compressor": "int8:rounding=stochastic", "mixing": "fixed:rounds=2"},
    {"algorithm": "choco-peers", "compressor": "topk:fraction=0.25"},
    {"algorithm": "choco", "topology": "ring", "compressor": "randk:fraction=0.25"},
    {"algorithm": "sgp:order=cta", "topology": "exponential"},
    {"algorithm": "dsgdm", "compressor": "none", **SGD},
    {"algorithm": "exact-diffusion", "topology": "base-k", "local_steps": 2},
    {"algorithm": "diloco", "topology": "base-k", "local_steps": 3},
    {"algorithm": "streaming-diloco:fragments=2", "local_steps": 2},
    {"algorithm": "relaysgd", "topology": "chain"},
    {"algorithm": "powergossip", "topology": "ring"},
    {"algorithm": "k-gt", "topology": "base-k", "local_steps": 3, **SGD},
    {"algorithm": "accum-adam", **SGD},
    {"algorithm": "dpsgd", "topology": "epidemic", "optimizer": "adamw"},
    {"aggregate": "cs-plus", "topology": "complete", "byzantine": "1", "attack": "alie"},
    {"aggregate": "nna", "topology": "complete", "byzantine": "1", "attack": "label-flip"},
]


@pytest.mark.parametrize("options", CASES, ids=lambda options: str(options.get("algorithm", "robust")))
@pytest.mark.filterwarnings("ignore::pydec.errors.RobustnessWarning")
def test_every_kind_of_algorithm_has_the_bits_of_the_local_cluster(tmp_path, options):
    config = TrainConfig(BLOBS, steps=5, threads=1, alpha=1.0, **options)
    with reproducible(threads=1):
        real = LocalCluster(5, deadline_s=1e9).run(lambda transport: trained(transport, config, tmp_path))
    liars = Scenario(5, config).liars
    assert simulated(5, config) == [bits for rank, bits in enumerate(real) if rank not in liars]


def test_buffers_are_averaged_as_on_ranks(tmp_path):
    config = TrainConfig(f"{BLOBS}:hidden=6,norm=true", steps=5, threads=1, alpha=1.0)
    with reproducible(threads=1):
        real = LocalCluster(3, deadline_s=1e9).run(lambda transport: trained(transport, config, tmp_path))
    simulation = Simulation(Scenario(3, config))
    models = simulation.run(keep=True).models
    parameters = simulation.learners.parameters
    assert [digest(models[rank][:parameters]) for rank in range(3)] == real


def test_all_gradients_at_once_have_the_numbers_of_one_by_one():
    config = TrainConfig(f"{BLOBS}:hidden=6", steps=8, threads=1, alpha=1.0, clip_norm=1.0)
    each, batched = (
        Simulation(Scenario(6, config, gradients=how)).run(keep=True) for how in ("each", "batched")
    )
    for rank in range(6):
        assert each.models[rank] == pytest.approx(batched.models[rank], rel=1e-3, abs=1e-4)
    assert each.summary["bytes_sent"] == batched.summary["bytes_sent"]


def test_adam_is_torch_s_own_where_gradients_come_at_once():
    config = TrainConfig(f"{BLOBS}:hidden=6", steps=6, threads=1, optimizer="adamw", compressor="none")
    each, batched = (
        Simulation(Scenario(4, config, gradients=how)).run(keep=True) for how in ("each", "batched")
    )
    for rank in range(4):
        assert each.models[rank] == pytest.approx(batched.models[rank], rel=1e-2, abs=1e-3)
