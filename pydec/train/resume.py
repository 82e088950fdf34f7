"""Going on from a run directory: which checkpoint all ranks have, what may change, and what it restores.

As many ranks as before continue with the same bits. Another number cannot; its ranks begin from the exact
mean of the saved models, which is the model that evaluations look at, with the mean of the optimisers'
states (exact for momentum, usual for Adam's moments). What belongs to gossip begins anew from there:
estimates of neighbours, error feedback, trackers, push-sum weights, anchors and outer momenta describe
ranks that are no more. The data goes on where the pass was, see ``batches_after``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError, PydecError
from pydec.train.certified import certified
from pydec.train.checkpoint_files import Store
from pydec.train.checkpoint_keys import opened
from pydec.train.checkpoint_state import unflatten
from pydec.train.config import TrainConfig, flag, versions
from pydec.train.parts import Parts, Roots
from pydec.train.rollback import Wanted
from pydec.train.task import Task
from pydec.train.together import Member, settle, table, text

if TYPE_CHECKING:
    from pydec.train.growth import Kept

FREE = frozenset(
    {
        "steps",
        "data",
        "deadline_s",
        "grace_s",
        "log_every",
        "eval_every",
        "checkpoint_every",
        "keep_last",
        "merge",
        "background",
        "compare_solo",
        "min_ranks",
        "replicas",
        "secure",
        "key",
        "peers",
        "passphrase_from",
        "pad",
        "seal_checkpoints",
        "keep_data",
        "store_checkpoints",
        "ledger",
    }
)
"""Options that a run may change when it goes on: they decide no bit of a step."""


_DEFAULTS = {item.name: item.default for item in fields(TrainConfig) if item.name not in {*FREE, "task"}}


def decided(config: TrainConfig) -> dict[str, Any]:
    """The options that decide the bits of a run, and that a checkpoint is therefore bound to."""
    return {name: value for name, value in asdict(config).items() if name not in FREE}


def configuration(run_dir: str, given: Mapping[str, Any]) -> TrainConfig:
    """What a run that goes on is asked to do.

    Args:
        run_dir: of the run.
        given: options that the user gives anew.

    Raises:
        ConfigError: no run is there, it is of a newer pydec, or an option would change its bits.
    """
    path = Path(run_dir) / "config.json"
    try:
        options = json.loads(path.read_bytes())["options"]
        known = {item.name for item in fields(TrainConfig)}
        newer = sorted(set(options) - known)
    except FileNotFoundError:
        raise ConfigError(f"--resume {run_dir}: there is no config.json, so it is no run directory") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"--resume {run_dir}: {path} cannot be read: {error}") from None
    if newer:
        raise ConfigError(
            f"--resume {run_dir}: {path} has option {newer[0]!r}, which this pydec does not know; resume "
            "with the version that wrote it"
        )
    saved = TrainConfig(**options)
    if given.get("epochs") or given.get("duration_s"):
        raise ConfigError("--resume: give the new length of the run as --steps")
    for name, value in given.items():
        if name not in FREE and value != getattr(saved, name):
            raise ConfigError(
                f"{flag(name)} {value} cannot be changed by --resume: the run in {run_dir} has "
                f"{getattr(saved, name) or 'none'}, and every step from the first depends on it; leave it "
                "out, or start a new run"
            )
    return replace(saved, **{name: value for name, value in given.items() if name in FREE})


@dataclass
class Point:
    """Where a run goes on.

    Attributes:
        step: steps done.
        members: the ranks that wrote the checkpoint, all that lived then.
        size: how many there had been at the start.
        history: (ranks, steps each of them took) up to it.
        mine: manifests of the saved ranks that this rank reads, verified, by rank.
        loop: state of the loop, see ``Loop.load_state``.
        data: facts about the data.
        said: what people should know.
        counts: steps of the checkpoints that count, where this is not one; else None.
        speaker: the rank that reads the part of the lowest member.
    """

    step: int
    members: list[int]
    size: int
    history: list[tuple[int, int]]
    mine: dict[int, dict[str, Any]]
    loop: dict[str, Any]
    data: dict[str, str]
    said: list[str] = field(default_factory=list)
    counts: list[int] | None = None
    speaker: int = 0

    def same(self, size: int) -> bool:
        """Whether that many ranks can go on with the same bits."""
        return self.size == size and len(self.members) == size

    def check_data(self, task: Task) -> None:
        """Raise ConfigError if the task has other data than the checkpoint's."""
        mine = data_facts(task)
        for name in sorted(self.data.keys() | mine.keys()):
            if self.data.get(name) != mine.get(name):
                raise ConfigError(
                    f"the run was made with other data: {name} was {self.data.get(name)}, and is "
                    f"{mine.get(name)} now; give the directory of the same data with --data"
                )


def find(peer: Member, store: Store, config: TrainConfig, wanted: Wanted = Wanted()) -> Point:  # noqa: B008  # frozen
    """The newest checkpoint that is whole on all ranks; all ranks together, all raise alike.

    Parts that a rank's disk lacks come from others, see ``parts``. With another number of ranks, rank r
    reads every size-th part from the r-th on. A checkpoint is of the ranks that lived; if some had died, what
    goes on is another number.

    Raises:
        ConfigError: there is none, it is of other options or of a newer pydec, the ledger knows a newer one,
            or the run is finished.
    """
    parts = Parts(peer, store, config.replicas)
    said: list[str] = []
    roots: Roots | None = None
    path = store.directory.path
    known = table(peer, [float(wanted.certified), float(wanted.foreign)])
    wanted = replace(wanted, certified=int(known[:, 0].max()), foreign=bool(known[:, 1].all()))
    steps = wanted.chosen(path, [line.step for line in parts.lines])
    for line in (line for line in parts.lines if line.step in steps):
        why = parts.missing(line)
        if not why:
            if roots is None:
                roots = certified(peer, config.ledger) if parts.foreign(line) else {}
            digests, why = parts.choose(line, roots)
        if not why:
            _check_rest(peer, store, config, line.step)
            why = parts.gather(line, digests)
        said += parts.said
        parts.said.clear()
        if not why:
            break
        said.append(f"the checkpoint of step {line.step} is left out: {why}")
    else:
        raise ConfigError(_none(store, said))
    step, members = line.step, list(line.members)
    wanted.check(path, step, said)
    if step < wanted.certified:
        said.append(f"step {step} was asked for; the ledger knows a checkpoint of step {wanted.certified}")
    mine = _mine(peer, store, config, step, members)
    plain = table(peer, [float(any("sealed" not in manifest for manifest in mine.values()))])[:, 0]
    if store.vault is not None and plain.any():
        said.append(f"the checkpoint of step {step} is not sealed: nothing proves who wrote it")
    common = json.loads(text(peer, json.dumps(_common(mine[members[0]]) if peer.rank == 0 else None)))
    point = _point(peer, config, step, members, mine, common, said)
    if wanted.step is not None:
        store.set_aside(step)
        said.append(f"checkpoints that are newer than step {step} were set aside, as checkpoints/aside-*")
    return point


def in_memory(peer: Member, kept: Kept | None, config: TrainConfig, speaker: int = 0) -> Point:
    """Where ranks go on that have their states in memory, with others; all ranks together.

    Args:
        peer: this rank.
        kept: what this rank has; None if it is new.
        config: of the run.
        speaker: the lowest rank that has a state.
    """
    told: dict[str, Any] = {}
    if kept is not None:
        told = {"step": kept.step, "members": list(kept.members), "counts": kept.counts}
        told |= _common(kept.body)
    common = json.loads(text(peer, json.dumps(told), speaker))
    mine = {} if kept is None else {kept.rank: kept.body}
    step, members = int(common["step"]), list(map(int, common["members"]))
    point = _point(peer, config, step, members, mine, common, [])
    point.counts, point.speaker = list(common["counts"]), speaker
    return point


def _point(
    peer: Member,
    config: TrainConfig,
    step: int,
    members: list[int],
    mine: dict[int, dict[str, Any]],
    common: dict[str, Any],
    said: list[str],
) -> Point:
    """The point that the manifests which this rank has, and what all know of rank 0's, describe."""
    loop = unflatten(common["loop"], {})
    history = [(int(n), int(taken)) for n, taken in common["history"]]
    point = Point(step, members, int(common["size"]), history, mine, loop, common["data"], said)
    if point.same(peer.size):
        point.loop = unflatten(mine[peer.rank]["state"]["loop"], {})
    else:
        moved = [unflatten(manifest["state"]["loop"], {})["bytes"] for manifest in mine.values()]
        loop |= {"losses": [], "bytes": [sum(pair[i] for pair in moved) for i in range(2)], "sent_to": {}}
        said.append(
            f"{_ranks(point)} came so far and {peer.size} go on: they start from the mean of the models and "
            "of the optimisers' states, gossip starts afresh, and the bits differ from those of a run "
            "without a break"
        )
    for name, version in versions().items():
        if common["versions"].get(name) != version:
            before = common["versions"].get(name, "missing")
            said.append(f"{name} is {version} and was {before}: the bits may differ from now on")
    if common["steps"] != config.steps and config.schedule == "cosine":
        was = replace(config, steps=common["steps"]).rate(min(step, common["steps"]))
        said.append(
            f"the cosine now ends at step {config.steps}, not {common['steps']}: from step {step} the "
            f"learning rate is {config.rate(step):.4g}, and was to be {was:.4g}"
        )
    said.append(f"going on from step {step}")
    return point


def _ranks(point: Point) -> str:
    if len(point.members) == point.size:
        return f"{point.size} ranks"
    return f"{len(point.members)} ranks, the survivors of {point.size},"


def _common(manifest: dict[str, Any]) -> dict[str, Any]:
    """What all ranks must know of rank 0's manifest."""
    return {
        **{name: manifest[name] for name in ("size", "steps", "history", "data", "versions")},
        "loop": manifest["state"]["loop"],
    }


def _done(path: Path) -> bool:
    """Whether the run in ``path`` came to its end."""
    try:
        return bool(json.loads((path / "summary.json").read_bytes())["status"] == "done")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _check_rest(peer: Member, store: Store, config: TrainConfig, step: int) -> None:
    """Raise ConfigError if the run has nothing left to do after a step; all ranks together."""
    path = store.directory.path
    ended = table(peer, [float(_done(path))])[:, 0].any()
    if config.steps < step or (config.steps == step and ended):
        raise ConfigError(
            f"--resume {path}: the run has done {step} steps and is asked for {config.steps}, so there is "
            f"nothing left to do; ask for more than {step} with --steps"
        )


def _mine(
    peer: Member, store: Store, config: TrainConfig, step: int, members: list[int]
) -> dict[int, dict[str, Any]]:
    """The manifests that this rank reads, of this run and opened; all ranks together."""
    mine: dict[int, dict[str, Any]] = {}
    error: PydecError | None = None
    try:
        for rank in members[peer.rank :: peer.size]:
            mine[rank] = store.manifest(step, rank)
            _check_options(store.path(step, rank, "json"), mine[rank]["options"], decided(config))
    except PydecError as caught:
        error = caught
    settle(peer, error)
    return opened(peer, store, step, mine)


def _check_options(path: Path, saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    saved = {**_DEFAULTS, **saved}  # an option that is younger than the checkpoint was at its default
    for name in sorted(saved.keys() | mine.keys()):
        if saved.get(name) != mine.get(name):
            raise ConfigError(
                f"{path} is of another run: {flag(name)} was {saved.get(name)!r} there, config.json says "
                f"{mine.get(name)!r}; put the run's own config.json and checkpoints together again"
            )


def _none(store: Store, said: list[str]) -> str:
    where = store.directory.path / "checkpoints"
    if said:
        return f"no checkpoint in {where} can be used; " + "; ".join(said)
    return (
        f"{where} holds no checkpoint: the run was killed before its first, wrote none (--keep-last 0, or an "
        "asynchronous algorithm), or its files are on another host; start it anew, with --checkpoint-every N"
    )


def data_facts(task: Task) -> dict[str, str]:
    """What is known of the data, wherever it lies."""
    return {name: str(value) for name, value in task.facts.items() if name != "data"}
