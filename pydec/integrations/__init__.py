"""Other libraries' own hooks, one module per library; each needs that library and is imported by its name.

``pydec.integrations.lightning`` has a strategy for Lightning's Trainer, ``pydec.integrations.transformers`` a
callback for Hugging Face's.
"""

import os

_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_NTASKS", "WORLD_SIZE")


def hide_launcher() -> None:
    """Remove the variables by which Accelerate sees that a launcher started this process, and starts DDP.

    After ``pydec.init()``, which reads them, and before ``TrainingArguments`` are made. A script that no
    launcher starts needs no such call.
    """
    for name in _LAUNCHED:
        os.environ.pop(name, None)
