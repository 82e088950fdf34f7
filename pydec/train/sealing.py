"""The keys that seal a training run's messages: the user's, or those of the ranks' nodes of a ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydec.comm.identity import Identity, of_list
from pydec.comm.sealing import Sealing
from pydec.comm.transport import Transport
from pydec.consensus.file_storage import GENESIS, read_genesis
from pydec.consensus.file_storage import KEY_FILE as KEY_FILE  # noqa: PLC0414  # of a rank
from pydec.consensus.genesis import Genesis
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, SetupError
from pydec.train.config import TrainConfig

_WORDS = "the ledger's keys; those that are new to it are trusted on first use, unless --peers names all"


def asked(config: TrainConfig) -> Sealing:
    """What a run's configuration says about sealing."""
    of_rank = identity_of(Path(config.ledger), config.peers) if config.ledger else None
    return Sealing(config.secure, config.key, config.peers, config.passphrase_from, config.pad, of_rank)


def identity_of(base: Path, peers: str = "") -> Callable[[int], Identity]:
    """Gives the identity of a rank: the key of its node of the ledger.

    Which keys are the members' the ledger decides once it runs, and it has each rank prove the key that its
    messages are sealed with (``check_sealed``). Before that nobody can know: newcomers and replaced ranks
    have keys that no block names yet.

    Args:
        base: directory of all ranks' nodes.
        peers: file with the public keys of those that are let in, in the order of ranks; "" lets all in.
    """

    def of_rank(rank: int) -> Identity:
        _, key, _ = node_of(base, rank)
        return (
            of_list(key, peers, rank) if peers else Identity(key, lambda rank, identity: None, True, _WORDS)
        )

    return of_rank


def node_of(base: Path, rank: int) -> tuple[Path, SigningKey, Genesis | None]:
    """The directory of a rank's node, its key, which is made if there is none, and its genesis, if it "
    "has one.

    Raises:
        SetupError, ConfigError, LedgerError: they cannot be made or used.
    """
    directory = base / f"rank-{rank}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"ledger directory {directory} cannot be made: {error.strerror}; choose another with --ledger"
        ) from None
    path = directory / KEY_FILE
    if not path.exists():
        keyfile.create(path, SigningKey.generate())
    genesis = read_genesis(directory) if (directory / GENESIS).exists() else None
    return directory, keyfile.load(path), genesis


def check_sealed(transport: Transport, rank: int, public: bytes) -> None:
    """See that a rank's key on the ledger is the one that its messages are sealed with, where they are.

    Raises:
        ConfigError: it is another one.
    """
    proved = getattr(transport, "identities", {}).get(rank, public)
    if proved != public:
        raise ConfigError(
            f"rank {rank} seals with key {proved.hex()[:16]} and has {public.hex()[:16]} on the ledger; "
            f"they must be "
            "one: somebody stands between the ranks, or the directories have changed places"
        )
