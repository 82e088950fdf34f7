"""Lightning's Trainer as one peer: what the strategy wraps, refuses, and tells of all peers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pydec
from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError

lightning: Any = pytest.importorskip("lightning", reason="needs pip install 'pydec-train[integrations]'")

from pydec.integrations.lightning import GossipStrategy  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on Slurm, workers and logging


class Module(lightning.LightningModule):
    def __init__(self, count=1):
        super().__init__()
        self.net, self.count, self.seen = torch.nn.Linear(3, 1), count, []

    def training_step(self, batch):
        self.seen += batch[:, 0].tolist()
        loss = self.net(batch).square().mean()
        self.log("loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(self.count)]


def trainer(peer, **options):
    quiet: dict[str, object] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    quiet |= {"enable_progress_bar": False, "max_epochs": 2, "accelerator": "cpu"}
    return lightning.Trainer(strategy=GossipStrategy(peer, iid=True), **quiet, **options)


def on_ranks(size, program):
    def run(link):
        return program(SimpleNamespace(transport=link, rank=link.rank, size=size))

    return LocalCluster(size).run(run)


def test_an_ordinary_module_trains_and_its_optimizer_gossips():
    with pydec.init() as peer:
        module, made = Module(), trainer(peer)
        before = module.net.weight.detach().clone()
        data = torch.utils.data.DataLoader(torch.ones(8, 3), batch_size=4)
        made.fit(module, data)
        assert isinstance(made.optimizers[0], pydec.DecentralizedOptimizer)
        assert made.optimizers[0].rounds >= 4
        assert not torch.equal(before, module.net.weight)
        assert (made.world_size, made.global_rank) == (1, 0)


def test_several_optimizers_are_refused():
    module = Module(count=2)
    module.automatic_optimization = False
    with pydec.init() as peer:
        made, data = trainer(peer), torch.utils.data.DataLoader(torch.ones(8, 3))
        with pytest.raises(ConfigError, match="Module returned 2 optimizers, expected one"):
            made.fit(module, data)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_peers_learn_means_sums_decisions_and_objects_of_all(size):
    def program(peer):
        strategy = GossipStrategy(peer)
        strategy.barrier()
        value = torch.tensor([float(peer.rank), 1.0])
        return (
            strategy.reduce(value).tolist(),
            strategy.reduce(value, reduce_op="sum").tolist(),
            strategy.reduce(torch.tensor(peer.rank)).item(),
            strategy.reduce_boolean_decision(peer.rank == 0, all=False),
            strategy.reduce_boolean_decision(peer.rank == 0),
            strategy.broadcast({"from": peer.rank}, src=size - 1),
            strategy.reduce("no tensor"),
        )

    mean, total = (size - 1) / 2, size * (size - 1) / 2
    for found in on_ranks(size, program):
        assert found[0] == pytest.approx([mean, 1.0])
        assert found[1] == pytest.approx([total, size])
        assert found[2] == pytest.approx(mean)
        assert found[3:] == (True, size == 1, {"from": size - 1}, "no tensor")


def test_a_peer_sees_its_share_and_knows_its_place():
    strategy = GossipStrategy(SimpleNamespace(rank=1, size=4))
    assert strategy.distributed_sampler_kwargs == {"num_replicas": 4, "rank": 1}
    assert (strategy.global_rank, strategy.local_rank, strategy.node_rank, strategy.world_size) == (
        1,
        0,
        1,
        4,
    )
    assert strategy.is_distributed
    assert not strategy.is_global_zero


def test_what_gossip_cannot_do_is_refused():
    strategy = GossipStrategy(SimpleNamespace(rank=1, size=4))
    with pytest.raises(ConfigError, match=r"reduce_op='max' is not supported by gossip; use 'mean' or 'sum'"):
        strategy.reduce(torch.ones(2), reduce_op="max")
    with pytest.raises(ConfigError, match=r"all_gather of a tensor of shape \(2, 3\)"):
        strategy.all_gather(torch.ones(2, 3))
