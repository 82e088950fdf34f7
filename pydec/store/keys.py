"""Keys of private data sets, each wrapped for the identities that may read: what a store keeps of them.

    DIR/keys/ROOT           a data set's key, wrapped for its owner and whoever was granted it
    DIR/keys/chain.ROOT     id of the chain whose ledger says who reads it; the file above has its owner alone
    DIR/keys/adding.NAME    the key of an add under way, wrapped for its owner, so that it can go on

No secret is in these files in the clear: who reads needs the signing key that an entry is for. On a ledger
GRANT carries the same entries, and REVOKE takes them back; without one, whoever writes the store's files
decides, and another copy of the store knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydec.codec import fields
from pydec.codec.fields import DIGEST, U32
from pydec.crypto.keyring import Keyring, Lock
from pydec.crypto.signing import SigningKey
from pydec.crypto.vault import DatasetKey
from pydec.crypto.wrapping import unwrap, unwrap_key, wrap, wrap_key
from pydec.disk import create_whole, naming
from pydec.errors import AccessDenied, ConfigError, FrameError, StoreError
from pydec.store.manifest import Manifest
from pydec.store.store import Store

_MOST_BYTES = 1 << 24
_ADDING = b"pydec.v1 | adding | "


@dataclass(frozen=True)
class Entry:
    """A key of a data set, wrapped for one reader.

    Args:
        grantee: public key of the reader.
        generation: of the key.
        wrapped: see ``crypto.wrapping``.
    """

    grantee: bytes
    generation: int
    wrapped: bytes


_ENTRY = fields.record(Entry, grantee=DIGEST, generation=U32, wrapped=fields.blob(512))
_ENTRIES = fields.many(_ENTRY, 1 << 14, key=lambda entry: (entry.grantee, entry.generation))


def key_to_add(store: Store, name: str, identity: SigningKey) -> DatasetKey:
    """The key to seal a new data set with: that of the interrupted add of this name, or a new one.

    Raises:
        StoreError: the disk fails, or the key that was begun with is another identity's.
    """
    path = _path(store, f"adding.{name}")
    found = _read(store, path)
    if found:
        try:
            return DatasetKey(unwrap(found[32:], identity, _ADDING + found[:32]), found[:32])
        except (FrameError, ValueError):
            raise StoreError(
                f"the interrupted add of {name} was begun with another key than "
                f"{identity.public.hex()[:16]}: use "
                f"that one, or give it up: pydec data remove {name}"
            ) from None
    key = DatasetKey.generate()
    _write(store, path, key.dataset + wrap(key.reveal(), identity.public, _ADDING + key.dataset))
    return key


def keep(store: Store, root: bytes, key: DatasetKey, readers: Iterable[bytes]) -> None:
    """Keep the key of a data set that is about to be in the store, for its owner and whoever else reads it.

    Raises:
        StoreError: the disk is full or fails.
    """
    entries = [Entry(reader, key.generation, wrap_key(key, root, reader)) for reader in sorted(set(readers))]
    _write(store, _path(store, root.hex()), _ENTRIES.encode(tuple(entries)))


def forget(store: Store, name: str, root: bytes | None = None) -> None:
    """Forget the key of an add, and that of a data set."""
    names = [] if root is None else [root.hex(), f"chain.{root.hex()}"]
    for path in (_path(store, name) for name in (f"adding.{name}", *names)):
        with naming(path, "removed", StoreError):
            store.disk.remove(path)


def keyring(store: Store, manifest: Manifest, identity: SigningKey | None) -> Keyring | None:
    """What opens the chunks of a data set; None for one that is not private.

    Raises:
        ConfigError: it is private, and there is no identity.
        AccessDenied: it was not granted to this identity.
        StoreError: its entry is damaged.
    """
    if not manifest.head.policy.encryption:
        return None
    if identity is None:
        raise ConfigError(f"data set {manifest.name} is private: name the key that may read it, --key FILE")
    lock = Lock.decode(manifest.head.policy.encryption)
    try:
        keys = [
            unwrap_key(entry.wrapped, identity, manifest.root, entry.generation, lock.dataset)
            for entry in _entries(store, manifest.root)
            if entry.grantee == identity.public
        ]
        if not keys:
            on = chain(store, manifest.root)
            where = f" on the ledger of chain {on.hex()[:16]}, named with --ledger" if on else ""
            raise AccessDenied(
                identity.public, "read the data set", manifest.root, f"its owner's grant{where}"
            )
        return Keyring(manifest.root, identity.public, lock, keys)
    except FrameError as error:
        raise StoreError(f"the key of {manifest.name} for {identity.public.hex()[:16]}: {error}") from None


def grant(store: Store, manifest: Manifest, identity: SigningKey, grantee: bytes) -> None:
    """Let another identity read a private data set, as far as this one can.

    Raises:
        ConfigError: the data set is not private, or a ledger says who reads it.
        AccessDenied: this identity cannot read it.
        SignatureError: ``grantee`` is no key that somebody could hold.
        StoreError: the disk is full or fails.
    """
    ring = _own(store, manifest, identity)
    made = [Entry(grantee, at, wrap_key(ring[at], manifest.root, grantee)) for at in ring]
    _change(store, manifest.root, made)


def revoke(store: Store, manifest: Manifest, identity: SigningKey, grantee: bytes) -> DatasetKey:
    """Forget a reader's keys here, and make a new one for what its owner adds from now on.

    Other copies of these files still have the reader's keys, and what it could open it can open for ever.

    Returns:
        The new key, kept for all who still read.

    Raises:
        ConfigError: as ``grant``; or there is no such reader.
        AccessDenied: this identity is not the owner.
        StoreError: the disk is full or fails.
    """
    ring = _own(store, manifest, identity)
    if identity.public != manifest.head.policy.owner:
        raise AccessDenied(identity.public, "revoke access to", manifest.root, "to be its owner")
    if grantee == identity.public or grantee not in readers(store, manifest.root):
        raise ConfigError(f"{grantee.hex()[:16]} is no reader of {manifest.name} beside its owner")
    key = DatasetKey.generate(ring.lock.dataset, max(ring) + 1)
    left = readers(store, manifest.root) - {grantee}
    made = [Entry(reader, key.generation, wrap_key(key, manifest.root, reader)) for reader in left]
    _change(store, manifest.root, made, without=grantee)
    return key


def readers(store: Store, root: bytes, generation: int | None = None) -> set[bytes]:
    """Who has a key of a data set here, or that of one generation."""
    return {e.grantee for e in _entries(store, root) if generation in (None, e.generation)}


def bind(store: Store, root: bytes, chain_id: bytes, owner: bytes) -> None:
    """Leave it to a ledger who reads a data set: nobody but its owner has a key here any more.

    Raises:
        StoreError: the disk is full or fails.
    """
    _write(store, _path(store, f"chain.{root.hex()}"), chain_id)
    kept = tuple(entry for entry in _entries(store, root) if entry.grantee == owner)
    _write(store, _path(store, root.hex()), _ENTRIES.encode(kept))


def chain(store: Store, root: bytes) -> bytes:
    """Id of the chain that says who reads a data set; empty: this store does."""
    return _read(store, _path(store, f"chain.{root.hex()}"))


def told_by(chain_id: bytes, manifest: Manifest) -> str:
    """Why the readers of a data set cannot be changed here."""
    return (
        f"the ledger of chain {chain_id.hex()[:16]} says who reads {manifest.name}: name it with --ledger DIR"
    )


def _own(store: Store, manifest: Manifest, identity: SigningKey) -> Keyring:
    """The keys of who wants to change the readers here."""
    if on := chain(store, manifest.root):
        raise ConfigError(told_by(on, manifest))
    ring = keyring(store, manifest, identity)
    if ring is None:
        raise ConfigError(f"data set {manifest.name} is not private: everybody can read it")
    return ring


def _change(store: Store, root: bytes, made: Iterable[Entry], without: bytes = b"") -> None:
    kept = {(entry.grantee, entry.generation): entry for entry in (*_entries(store, root), *made)}
    left = tuple(kept[at] for at in sorted(kept) if at[0] != without)
    _write(store, _path(store, root.hex()), _ENTRIES.encode(left))


def entries(store: Store, root: bytes) -> bytes:
    """The keys of a data set that are here, wrapped as they are, for another store; empty: none."""
    return _read(store, _path(store, root.hex()))


def adopt(store: Store, root: bytes, data: bytes) -> None:
    """Keep what ``entries`` gave in another store; nothing in it is trusted before a key is unwrapped.

    Raises:
        FrameError: it is something else.
        StoreError: the disk is full or fails.
    """
    _ENTRIES.decode(data, "keys of a data set")
    _write(store, _path(store, root.hex()), data)


def _entries(store: Store, root: bytes) -> tuple[Entry, ...]:
    path = _path(store, root.hex())
    data = _read(store, path)
    try:
        return _ENTRIES.decode(data, "keys of a data set") if data else ()
    except FrameError as error:
        raise StoreError(f"{path} is damaged: {error}") from None


def _path(store: Store, name: str) -> Path:
    return store.directory / "keys" / name


def _read(store: Store, path: Path) -> bytes:
    with naming(path, "read", StoreError):
        try:
            return store.disk.read_whole(path, _MOST_BYTES)
        except FileNotFoundError:
            return b""


def _write(store: Store, path: Path, data: bytes) -> None:
    with naming(path, "written", StoreError):
        store.disk.make_directory(path.parent)
        create_whole(store.disk, path, data)
