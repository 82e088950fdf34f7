"""Who gets the keys of sealed checkpoints: the ranks of this job, all together, by their identity keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydec.comm.identity import given
from pydec.comm.living import living
from pydec.comm.team import rank_of
from pydec.crypto.signing import SigningKey
from pydec.errors import PydecError
from pydec.train.checkpoint_files import Store
from pydec.train.checkpoint_vault import Entry, Vault, entry_of
from pydec.train.config import TrainConfig
from pydec.train.sealing import check_sealed, node_of
from pydec.train.together import Member, jointly, settle, speaks, table, text, texts


def vault_of(peer: Member, config: TrainConfig) -> Vault | None:
    """This rank's vault, with a new key that every rank of the job has; None where nothing is sealed.

    All ranks that take part call it together: who may see no tensor gets no key. The keys of the others are
    those that their messages are sealed with, where they are; else, on one host, whatever they say.

    Raises:
        SharedError: a rank's identity key cannot be had, or is not the one that it has proved.
    """
    if not config.seal_checkpoints:
        return None
    identity = jointly(peer, lambda: own_identity(config, rank_of(peer.transport, peer.rank)))
    publics = _publics(peer, identity)
    vault = Vault(identity)

    def begin() -> Vault:
        for rank, public in enumerate(publics):
            check_sealed(peer.transport, rank, public)
        return vault

    jointly(peer, begin)
    drawn = text(peer, json.dumps(vault.draw(publics)) if speaks(peer) else "", living(peer.transport).first)
    entry = json.loads(drawn)
    signatures = texts(peer, jointly(peer, lambda: vault.sign(entry)))
    vault.use(entry, dict(zip(publics, signatures, strict=True)))
    return vault


def _publics(peer: Member, identity: SigningKey) -> list[bytes]:
    """Public identity keys by rank."""
    return [bytes.fromhex(words) for words in texts(peer, identity.public.hex())]


def opened(
    peer: Member, store: Store, step: int, manifests: Mapping[int, dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Manifests with their states in the clear, by rank; all ranks together, all raise alike.

    Args:
        peer: this rank.
        store: where they are, with this rank's vault.
        step: of the checkpoint.
        manifests: those that this rank reads, by rank.

    Raises:
        ConfigError: a part is sealed, and no rank of this job has its key.
        SetupError: a part was tampered with.
    """
    said = [entry_of(manifest.get("sealed")) for manifest in manifests.values()]
    _hand_over(peer, store.vault, {entry["id"]: entry for entry in said if entry is not None})
    found: dict[int, dict[str, Any]] = {}
    error: PydecError | None = None
    try:
        found = {rank: store.opened(step, rank, manifest) for rank, manifest in manifests.items()}
    except PydecError as caught:
        error = caught
    settle(peer, error)
    return found


def _hand_over(peer: Member, vault: Vault | None, entries: Mapping[str, Entry]) -> None:
    """Give the keys of older starts to ranks that need them and were none of them; all ranks together.

    Such a rank goes on from the model that these keys open, so it learns nothing that it is not given anyway.
    Who has a key is asked for it in one round, and the lowest rank that has it wraps it.

    Args:
        peer: this rank.
        vault: of this rank.
        entries: what the manifests that this rank reads say of their keys, by id.
    """
    lacks = sorted(n for n, entry in entries.items() if vault is not None and not vault.opens(entry))
    asked = texts(peer, json.dumps(lacks) if lacks else "")
    wanted = sorted({name for words in asked if words for name in json.loads(words)})
    if not wanted:
        return
    assert vault is not None  # all ranks have one, or none
    has = table(peer, [float(vault.has(name)) for name in wanted])
    publics = _publics(peer, vault.identity)
    mine: dict[str, dict[str, str]] = {}
    for place, name in enumerate(wanted):
        if has[:, place].any() and int(has[:, place].argmax()) == peer.rank:
            needy = [rank for rank, words in enumerate(asked) if words and name in json.loads(words)]
            mine[name] = {str(rank): vault.wrap_for(name, publics[rank]) for rank in needy}
    for words in texts(peer, json.dumps(mine) if mine else ""):
        for name, wrapped in json.loads(words).items() if words else ():
            if str(peer.rank) in wrapped:
                vault.take(name, wrapped[str(peer.rank)])


def own_identity(config: TrainConfig, rank: int) -> SigningKey:
    """The identity key of a rank: that of its node of the ledger, or the user's.

    Raises:
        ConfigError, SetupError, LedgerError: it cannot be had.
    """
    if config.ledger:
        return node_of(Path(config.ledger), rank)[1]
    return given(config.key, config.peers, config.passphrase_from, rank).key
