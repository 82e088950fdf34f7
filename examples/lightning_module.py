"""A Lightning module, decentralised by a strategy: each peer runs a Trainer on its own share of the data.

Run: mpirun -n 4 python examples/lightning_module.py (needs lightning)

No torch.distributed, no all-reduce. The module is an ordinary one: ``GossipStrategy`` wraps its optimiser and
splits the DataLoader among the peers; automatic optimisation, clipping, accumulation and schedulers work as
always.
"""

import logging
import warnings

import lightning
import torch

import pydec
from pydec.integrations.lightning import GossipStrategy


class Regression(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))

    def training_step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss, on_epoch=True, sync_dist=True)  # the mean over all peers
        return loss

    def configure_optimizers(self):
        adamw = torch.optim.AdamW(self.parameters(), lr=3e-3)
        return {"optimizer": adamw, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(adamw, 5)}


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", ".*does not have many workers.*")

peer = pydec.init()
torch.manual_seed(0)
x = torch.randn(8192, 16)
data = torch.utils.data.TensorDataset(x, torch.sin(x).sum(dim=1, keepdim=True))

trainer = lightning.Trainer(
    strategy=GossipStrategy(peer, compressor="int8", iid=True),  # the shares are alike
    accelerator="cpu",
    max_epochs=5,
    gradient_clip_val=1.0,
    logger=False,
    enable_checkpointing=False,
    enable_model_summary=False,
    enable_progress_bar=False,
)
trainer.fit(Regression(), torch.utils.data.DataLoader(data, batch_size=64, shuffle=True))

distance = trainer.optimizers[0].consensus_distance()
if peer.rank == 0:
    print(
        f"{peer.size} peers: loss {trainer.callback_metrics['loss']:.4f}, consensus distance {distance:.2g}"
    )
peer.close()
