"""Hugging Face's Trainer, decentralised: each peer runs one, on its own share of the data.

Run: mpirun -n 4 python examples/huggingface_trainer.py (needs transformers and accelerate)

No torch.distributed, no all-reduce. The Trainer takes the optimiser through ``optimizers=`` and clips,
schedules and accumulates as always. Two rules matter:

- Accelerate starts torch.distributed when it finds a launcher's variables in the environment:
  ``hide_launcher`` removes them, once pydec has read them.
- All peers take equally many steps: give them shares of equal length, or set ``max_steps``, as here.
"""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)

import pydec
from pydec.integrations import hide_launcher
from pydec.integrations.transformers import GossipCallback

STEPS = 60

peer = pydec.init()
hide_launcher()

torch.manual_seed(0)
start = torch.randint(61, (1024, 1))
text = (start * 3 ** torch.arange(16) + torch.arange(16)) % 61  # every token follows from the one before it
share = [{"input_ids": row, "labels": row} for row in text[peer.rank :: peer.size]]

model = GPT2LMHeadModel(
    GPT2Config(vocab_size=61, n_positions=16, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
)
adamw = torch.optim.AdamW(model.parameters(), lr=1e-2)
opt = pydec.DecentralizedOptimizer(
    adamw, peer, compressor="int8", model=model, iid=True
)  # the shares are alike
schedule = get_cosine_schedule_with_warmup(opt, num_warmup_steps=5, num_training_steps=STEPS)
arguments = TrainingArguments(
    output_dir=f"runs/huggingface-{peer.rank}",
    max_steps=STEPS,
    per_device_train_batch_size=16,
    logging_steps=STEPS,
    save_strategy="no",  # or let rank 0 alone save what `with opt.averaged():` shows
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
    dataloader_pin_memory=False,
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=share,
    eval_dataset=share[:64],
    optimizers=(opt, schedule),
    callbacks=[GossipCallback()],  # logs how far the models are apart, and ends gossip
)
trainer.train()

distance = opt.consensus_distance()
with opt.averaged():
    loss = trainer.evaluate()["eval_loss"]
if peer.rank == 0:
    print(f"{peer.size} peers: loss {loss:.4f}, consensus distance {distance:.2g}")
peer.close()
