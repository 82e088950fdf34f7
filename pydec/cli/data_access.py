"""``pydec data grant`` and ``revoke``: who may open private data, on a ledger or in files beside the data.

On a ledger the owner signs, all nodes judge, and a REVOKE holds for every rank that asks the chain. Beside
the data nobody judges: a file is as good as the permissions of its directory, and of one copy of the store.
"""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.errors import AccessDenied, ConfigError

if TYPE_CHECKING:
    from pydec.consensus.inbox import Bundle
    from pydec.consensus.state.chain import ChainState
    from pydec.crypto.keyring import Keyring
    from pydec.crypto.signing import SigningKey
    from pydec.crypto.vault import DatasetKey
    from pydec.store.manifest import Manifest
    from pydec.store.store import Store

CANNOT = (
    "what the reader could open before, it can open for ever: it may have kept keys, chunks or data, and "
    "nobody can see whether"
)
BESIDE = (
    "beside the data: whoever writes the store's files decides, and other copies of them know nothing of it"
)
_HANDED = "a running job commits it within seconds, another at its next start"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of private data."""
    parser.add_argument(
        "--private", action="store_true", help="add: seal all chunks for the identity of --key"
    )
    parser.add_argument(
        "--extends", metavar="N", help="add --private: for the readers of this one, with its newest key"
    )
    parser.add_argument("--key", metavar="FILE", type=Path, help="identity that owns or reads private data")
    parser.add_argument(
        "--passphrase-from", metavar="SOURCE", help="passphrase of the key file: env:NAME or fd:NUMBER"
    )


def check(args: argparse.Namespace) -> None:
    """Raise ConfigError where these options do not go together; sets ``args.ledger``, whose word counts."""
    if args.private and (args.action != "add" or args.key is None):
        raise ConfigError(
            "--private needs data add and --key FILE, the owner's; pydec keys new FILE makes one"
        )
    if args.extends is not None and not args.private:
        raise ConfigError("--extends needs data add --private, of the same owner")
    args.ledger = None
    if args.ledgers and args.action != "remove":
        if not (args.private or args.action in ("export", "grant", "revoke")):
            raise ConfigError("--ledger needs data add --private, export, grant, revoke or remove")
        if len(args.ledgers) > 1:
            raise ConfigError(f"data {args.action}: one --ledger says who reads, got {len(args.ledgers)}")
        (args.ledger,) = args.ledgers


def identity(args: argparse.Namespace) -> SigningKey | None:
    """The key of ``--key``.

    Raises:
        SetupError: it cannot be had.
    """
    if args.key is None:
        return None
    from pydec.crypto import keyfile

    return keyfile.load(args.key, keyfile.secret_from(args.passphrase_from) if args.passphrase_from else None)


def keyring(
    args: argparse.Namespace, store: Store, manifest: Manifest, reader: SigningKey | None
) -> Keyring | None:
    """What opens a data set, by ``--ledger`` or by the files beside it; None for one that is not private.

    Raises:
        ConfigError: it is private and there is no key, or it is not on the ledger.
        AccessDenied: it was not granted to this key, or was taken from it.
        StoreError, LedgerError: damaged files.
    """
    from pydec.store import keys

    if args.ledger is None or reader is None or not manifest.head.policy.encryption:
        return keys.keyring(store, manifest, reader)
    return _on_ledger(_newest(args.ledger)[0], reader, manifest)


def change(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Grant or revoke; what to say of it.

    Raises:
        ConfigError: no such data set or reader.
        AccessDenied: the key is not its owner's.
        TransactionError: the chain refuses it.
        StoreError, LedgerError, SetupError: files that are damaged or cannot be written.
    """
    manifest, key = store.find(args.what), identity(args)
    if key is None:
        raise ConfigError(f"data {args.action} needs --key FILE, the owner's")
    with store.lock():
        return Owner(args, store, key).change(manifest)


class Owner:
    """Who adds private data, and says who reads it.

    Args:
        args: of the command.
        store: with the data.
        key: of the owner.
    """

    def __init__(self, args: argparse.Namespace, store: Store, key: SigningKey) -> None:
        self._args, self._store, self._key = args, store, key
        if args.ledger is not None and args.action == "add":
            from pydec.consensus.access import Action, allow

            allow(self._bundle.state, key.public, Action.REGISTER_DATA)

    @cached_property
    def _bundle(self) -> Bundle:
        from pydec.consensus.inbox import Bundle

        state, node = _newest(self._args.ledger)
        return Bundle(node, state, self._key)

    def extended(self) -> tuple[Manifest, DatasetKey] | None:
        """The data set of ``--extends`` and its newest key.

        Raises:
            ConfigError: there is none, or it is not private.
            AccessDenied: it is another's, or its newest key is not to be had.
        """
        if self._args.extends is None:
            return None
        manifest, ring = self._own(self._store.find(self._args.extends), "extend the data set")
        record = None if self._args.ledger is None else self._bundle.state.datasets.get(manifest.root)
        return manifest, ring[max(ring) if record is None else record.generation]

    def added(self, manifest: Manifest) -> dict[str, Any]:
        """Put what was added now on the ledger, for the readers of what it extends; what to say of it."""
        if self._args.ledger is None:
            return {"readers": BESIDE}
        from pydec.consensus.grants import inherit

        ring = self._register(manifest)
        parent = manifest.head.policy.parent
        if parent in self._bundle.state.datasets:
            inherit(self._bundle, ring[max(ring)], parent, manifest.root)
        return self._put(manifest)

    def change(self, manifest: Manifest) -> dict[str, Any]:
        """Grant or revoke, as the command says."""
        from pydec.store import keys

        grants = self._args.action == "grant"
        reader = self._reader()
        found = {"name": manifest.name, "reader": reader.hex()}
        if self._args.ledger is None:
            if grants:
                keys.grant(self._store, manifest, self._key, reader)
                return found | {"kept": BESIDE}
            new = keys.revoke(self._store, manifest, self._key, reader)
            return found | {"generation": new.generation, "kept": BESIDE, "not undone": CANNOT}
        from pydec.consensus.grants import give, take

        ring = self._register(manifest)
        if not grants:
            if reader == self._key.public:
                raise ConfigError("a data set's owner reads it; revoke takes it from others")
            new = take(self._bundle, ring, reader)
            return found | {"generation": new.generation} | self._put(manifest) | {"not undone": CANNOT}
        if not give(self._bundle, ring, reader) and not len(self._bundle):
            raise ConfigError(f"{reader.hex()[:16]} has all keys of {manifest.name} already")
        return found | self._put(manifest)

    def _reader(self) -> bytes:
        who = self._args.target
        if self._args.ledger is not None:
            from pydec.cli.ledger_roles import identity_of

            return identity_of(self._bundle.state, who, unknown=False)
        try:
            reader = bytes.fromhex(who)
        except ValueError:
            reader = b""
        if len(reader) != len(self._key.public):
            raise ConfigError(f"{who!r} is no public key; pydec keys show FILE prints one")
        return reader

    def _own(self, manifest: Manifest, wants: str) -> tuple[Manifest, Keyring]:
        """The owner's keys of a data set that is its own."""
        policy = manifest.head.policy
        if not policy.encryption:
            raise ConfigError(f"data set {manifest.name} is not private: everybody can read it")
        if policy.owner != self._key.public:
            raise AccessDenied(self._key.public, wants, manifest.root, "to be its owner")
        from pydec.store import keys

        if self._args.ledger is not None and manifest.root in self._bundle.state.datasets:
            return manifest, _on_ledger(self._bundle.state, self._key, manifest)
        if self._args.ledger is None and (on := keys.chain(self._store, manifest.root)):
            raise ConfigError(keys.told_by(on, manifest))
        ring = keys.keyring(self._store, manifest, self._key)
        assert ring is not None
        return manifest, ring

    def _register(self, manifest: Manifest) -> Keyring:
        """See that the ledger knows a data set; what was granted beside it goes there, too."""
        from pydec.consensus.grants import give
        from pydec.consensus.transactions import Dataset
        from pydec.store import keys

        _, ring = self._own(manifest, "grant access to the data set")
        bundle = self._bundle
        if manifest.root not in bundle.state.datasets:
            policy = manifest.head.policy
            parent = policy.parent if policy.parent in bundle.state.datasets else bytes(32)
            bundle.say(Dataset(manifest.root, manifest.name, policy.replicas, policy.parity, 1, parent))
            for reader in (self._key.public, *sorted(keys.readers(self._store, manifest.root))):
                if reader in bundle.state.accounts:
                    give(bundle, ring, reader)
        return ring

    def _put(self, manifest: Manifest) -> dict[str, Any]:
        from pydec.store import keys

        files, accounts = self._bundle.put(), self._bundle.state.accounts
        unknown = [
            reader.hex() for reader in keys.readers(self._store, manifest.root) if reader not in accounts
        ]
        keys.bind(self._store, manifest.root, self._bundle.state.chain_id, self._key.public)
        told = {"ledger": f"{len(files)} transactions to {files[0].parent}; {_HANDED}"}
        return told | ({"no account": ", ".join(sorted(unknown))} if unknown else {})


def _newest(directory: Path) -> tuple[ChainState, Path]:
    """The newest state of a ledger, verified, and the node to hand transactions to."""
    from pydec.cli.ledger import nodes_of
    from pydec.consensus.replay import replayed

    node = (nodes_of(directory) or [directory])[0]
    return replayed(node).state, node


def _on_ledger(state: ChainState, reader: SigningKey, manifest: Manifest) -> Keyring:
    from pydec.consensus import grants
    from pydec.crypto.keyring import Lock

    return grants.keyring(state, reader, manifest.root, Lock.decode(manifest.head.policy.encryption))
