"""An ordinary torch loop, decentralised by three lines. Run: mpirun -n 4 python examples/minimal.py"""

import torch

import pydec

peer = pydec.init()  # 1: one peer of many under mpirun, alone otherwise
torch.manual_seed(0)
x = torch.randn(8192, 16)
y = torch.sin(x).sum(dim=1, keepdim=True)
x, y = x[peer.rank :: peer.size], y[peer.rank :: peer.size]  # 2: every peer keeps its own share of the data

model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
adamw = torch.optim.AdamW(model.parameters(), lr=3e-3)
opt = pydec.DecentralizedOptimizer(adamw, peer, compressor="int8", iid=True)  # 3: shares of one distribution

for _ in range(300):
    batch = torch.randint(len(x), (64,))
    opt.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x[batch]), y[batch])
    loss.backward()
    opt.step()

distance = opt.consensus_distance()  # how far apart the models are; every peer asks
if peer.rank == 0:
    print(f"{peer.size} peers: loss {loss.item():.4f}, consensus distance {distance:.2g}")
peer.close()
