"""A callback for Hugging Face's Trainer, of which every peer runs one."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from pydec.errors import ConfigError
from pydec.optim import DecentralizedOptimizer


class GossipCallback(TrainerCallback):
    """Checks that the Trainer's optimiser gossips, logs how far models are apart, and ends gossip at the end.

    Pass it as ``Trainer(callbacks=[GossipCallback()])``, so that it comes before those that print logs.

    Args:
        distance: whether every log has "consensus_distance"; costs one ring all-reduce of the model, for
            which all peers must log at the same steps.

    Raises:
        ConfigError: when training begins, with an optimiser that is no ``DecentralizedOptimizer``, or shared
            among several processes by Accelerate.
    """

    def __init__(self, distance: bool = True) -> None:
        self._distance = distance
        self._optimizer: DecentralizedOptimizer | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Find the optimiser, below what Accelerate puts round it."""
        found = (
            getattr(optimizer, "optimizer", optimizer)
            if "Accelerated" in type(optimizer).__name__
            else optimizer
        )
        if not isinstance(found, DecentralizedOptimizer):
            raise ConfigError(
                f"the Trainer's optimizer is {type(found).__name__}, expected pydec.DecentralizedOptimizer; "
                "pass one as Trainer(optimizers=(DecentralizedOptimizer(...), None))"
            )
        if args.world_size != 1:
            raise ConfigError(
                f"the Trainer shares its work among {args.world_size} processes, expected 1; call "
                "pydec.integrations.hide_launcher() before TrainingArguments are made"
            )
        self._optimizer = found

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Add the consensus distance to logs of training."""
        if self._distance and self._optimizer is not None and logs is not None and "loss" in logs:
            logs["consensus_distance"] = distance = self._optimizer.consensus_distance()
            state.log_history[-1]["consensus_distance"] = distance

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for the packets that are under way."""
        if self._optimizer is not None:
            self._optimizer.close()
            self._optimizer = None
