"""Which store is whose in a job: where each rank's is, what ``--data`` names in it, and what must not be."""

from __future__ import annotations

from pathlib import Path

from pydec.comm.team import rank_of
from pydec.errors import ConfigError, SetupError
from pydec.store.collecting import note_ledger
from pydec.store.store import Store
from pydec.train.config import TrainConfig
from pydec.train.replicas import disks
from pydec.train.together import Member

PATH = "a path"


def directory_of(peer: Member, config: TrainConfig) -> Path | None:
    """This rank's store, as ``--store`` names it; None is the user's."""
    rank = rank_of(peer.transport, peer.rank)
    return Path(config.store.replace("{rank}", str(rank))) if config.store else None


def opened(peer: Member, config: TrainConfig) -> Store:
    """This rank's store, which remembers the ledger that will know its data."""
    store = Store(directory_of(peer, config), create=True)
    if config.ledger:
        note_ledger(store, Path(config.ledger) / f"rank-{rank_of(peer.transport, peer.rank)}")
    return store


def look(peer: Member, config: TrainConfig) -> str:
    """What ``--data`` is on this rank: a path, the root of a data set, or nothing."""
    if Path(config.data).exists():
        return PATH
    try:
        with Store(directory_of(peer, config)) as store:
            return store.find(config.data).root.hex()
    except ConfigError:
        return ""


def check_one(name: str, roots: list[str], said: list[str]) -> None:
    """Raise ConfigError if ranks have different data sets of one name.

    Args:
        name: of them.
        roots: that there are.
        said: which each rank has.
    """
    if len(roots) > 1:
        words = ", ".join(f"rank {said.index(root)} has {root[:16]}" for root in roots)
        raise ConfigError(
            f"--data {name}: ranks have different data sets of this name: {words}; name one by its root"
        )


def first_of(peer: Member, store: Store) -> bool:
    """Whether this rank is the lowest of those that share its store; all ranks together."""
    return peer.size == 1 or disks(peer, store.directory / "adding")[peer.rank] == peer.rank


def check_apart(peer: Member, store: Store) -> None:
    """Raise ConfigError on all ranks if two of them have one store: one would remove what the other owes."""
    disk = disks(peer, store.directory / "adding")
    for rank, lowest in enumerate(disk):
        if rank != lowest:
            raise ConfigError(
                f"--keep-data owed: ranks {lowest} and {rank} have one store, {store.directory}; give each "
                "its own, such as --store 'DIR/{rank}'"
            )


def check_threads(peer: Member, background: object) -> None:
    """Raise SetupError if nothing runs beside this rank's program, and others may ask it for data."""
    if peer.size > 1 and background is None:
        raise SetupError(
            "data from peers needs an MPI with MPI_THREAD_MULTIPLE; or copy the data set to every host, and "
            "name "
            "the folder that pydec data export makes of it"
        )
