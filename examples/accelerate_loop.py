"""A loop with Accelerate, decentralised: Accelerate prepares, pydec averages.

Run: mpirun -n 4 python examples/accelerate_loop.py (needs accelerate)

Accelerate keeps devices, mixed precision, gradient accumulation and clipping. No torch.distributed is
started, because the launcher's variables are removed once pydec has read them. The optimiser is wrapped
before ``prepare``.
"""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import pydec
from pydec.integrations import hide_launcher

peer = pydec.init()
hide_launcher()

torch.manual_seed(0)
x = torch.randn(4096, 16)
y = torch.sin(x).sum(dim=1, keepdim=True)
share = TensorDataset(x[peer.rank :: peer.size], y[peer.rank :: peer.size])

model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
adamw = torch.optim.AdamW(model.parameters(), lr=3e-3)
opt = pydec.DecentralizedOptimizer(adamw, peer, compressor="int8", iid=True)

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model, prepared, loader = accelerator.prepare(model, opt, DataLoader(share, batch_size=32, shuffle=True))

for _ in range(6):
    for inputs, targets in loader:
        with accelerator.accumulate(model):
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 5.0)
            prepared.step()
            prepared.zero_grad()

distance = opt.consensus_distance()
if peer.rank == 0:
    print(f"{peer.size} peers: loss {loss.item():.4f}, consensus distance {distance:.2g}")
peer.close()
