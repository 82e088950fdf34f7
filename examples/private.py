"""Peers tell little about any one of their samples. Run: mpirun -n 4 python examples/private.py"""

import os

import torch
from torch.nn.functional import mse_loss

import pydec
from pydec.privacy import PrivateGradients

peer = pydec.init()
torch.manual_seed(0)
x = torch.randn(8192, 16)
y = torch.sin(x).sum(dim=1, keepdim=True)
x, y = x[peer.rank :: peer.size], y[peer.rank :: peer.size]

model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
adamw = torch.optim.AdamW(model.parameters(), lr=3e-3)
opt = pydec.DecentralizedOptimizer(adamw, peer, model=model, compressor="int8", iid=True)

account = os.path.join(
    os.environ.get("ACCOUNTS", "accounts"), f"rank-{peer.rank}.jsonl"
)  # keep it with the data
with PrivateGradients(model, mse_loss, samples=len(x), batch_size=128, noise=1.0, account=account) as private:
    for _ in range(300):
        chosen = private.draw()  # in place of a data loader: nobody else may know who is in a batch
        private.backward(x[chosen], y[chosen])  # in place of loss.backward()
        opt.step()
        opt.zero_grad()
    epsilon, delta = private.epsilon(), private.delta

opt.merge()  # one model; its loss on samples of somebody else
with torch.no_grad():
    fresh = torch.randn(1000, 16)
    loss = mse_loss(model(fresh), torch.sin(fresh).sum(dim=1, keepdim=True))
distance = opt.consensus_distance()
if peer.rank == 0:
    print(f"{peer.size} peers: loss {loss.item():.4f}, consensus distance {distance:.2g}")
    print(f"epsilon {epsilon:.3g} at delta {delta:.2g} for each peer's samples")
peer.close()
