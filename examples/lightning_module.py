"""A Lightning module, decentralised: each peer runs a Trainer on its own share of the data.

Run: mpirun -n 4 python examples/lightning_module.py (needs lightning)

No torch.distributed, no all-reduce. ``configure_optimizers`` returns the DecentralizedOptimizer; automatic
optimisation, clipping, accumulation and schedulers work as always. Two rules of Lightning matter:

- It passes forward and backward to ``step`` as a closure. ``DecentralizedOptimizer.step(closure)`` leaves
  that to the wrapped optimiser, after mixing: right, but nothing is hidden behind the gradient, and
  algorithms that use the gradient before the step, such as gradient tracking, refuse it. ``ClosureFirst``
  calls it first, which makes no difference to optimisers that call it once: all but LBFGS.
- It asks MPI for ranks to run DDP on; ``LightningEnvironment`` says that this Trainer is alone.
"""

import logging
import warnings

import lightning
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment

import pydec


class ClosureFirst(pydec.DecentralizedOptimizer):
    """Computes the gradient while packets travel, then steps and mixes."""

    def step(self, closure=None):
        loss = None if closure is None else closure()
        super().step()
        return loss


class Regression(lightning.LightningModule):
    def __init__(self, peer):
        super().__init__()
        self.peer = peer
        self.net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))

    def training_step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        adamw = torch.optim.AdamW(self.parameters(), lr=3e-3)
        opt = ClosureFirst(adamw, self.peer, compressor="int8", model=self, iid=True)  # the shares are alike
        return {"optimizer": opt, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(opt, 5)}


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", ".*does not have many workers.*")

peer = pydec.init()
torch.manual_seed(0)
x = torch.randn(8192, 16)
y = torch.sin(x).sum(dim=1, keepdim=True)
share = torch.utils.data.TensorDataset(
    x[peer.rank :: peer.size], y[peer.rank :: peer.size]
)  # of equal length

module = Regression(peer)
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=1,
    plugins=[LightningEnvironment()],
    max_epochs=5,
    gradient_clip_val=1.0,
    logger=False,
    enable_checkpointing=False,
    enable_model_summary=False,
    enable_progress_bar=False,
)
trainer.fit(module, torch.utils.data.DataLoader(share, batch_size=64, shuffle=True))

opt = trainer.optimizers[0]
opt.close()
distance = opt.consensus_distance()
if peer.rank == 0:
    print(
        f"{peer.size} peers: loss {trainer.callback_metrics['loss']:.4f}, consensus distance {distance:.2g}"
    )
peer.close()
