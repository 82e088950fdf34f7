"""Keys of private data sets, each wrapped for the identities that may read: what a store keeps of them.

    DIR/keys/ROOT           a data set's key, wrapped for its owner and whoever was granted it
    DIR/keys/adding.NAME    the key of an add under way, wrapped for its owner, so that it can go on

No secret is in these files in the clear: who reads needs the signing key that an entry is for. On a ledger
GRANT carries the same entries.
"""

from __future__ import annotations

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


def keep(store: Store, root: bytes, key: DatasetKey, owner: bytes) -> None:
    """Keep the key of a data set that is about to be in the store, for its owner.

    Raises:
        StoreError: the disk is full or fails.
    """
    entry = Entry(owner, key.generation, wrap_key(key, root, owner))
    _write(store, _path(store, root.hex()), _ENTRIES.encode((entry,)))


def forget(store: Store, name: str, root: bytes | None = None) -> None:
    """Forget the key of an add, and that of a data set."""
    for path in [_path(store, f"adding.{name}"), *([] if root is None else [_path(store, root.hex())])]:
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
            raise AccessDenied(identity.public, "read the data set", manifest.root, "its owner's grant")
        return Keyring(manifest.root, identity.public, lock, keys)
    except FrameError as error:
        raise StoreError(f"the key of {manifest.name} for {identity.public.hex()[:16]}: {error}") from None


def grant(store: Store, manifest: Manifest, identity: SigningKey, grantee: bytes) -> None:
    """Let another identity read a private data set, as far as this one can.

    Raises:
        ConfigError: the data set is not private.
        AccessDenied: this identity cannot read it.
        SignatureError: ``grantee`` is no key that somebody could hold.
        StoreError: the disk is full or fails.
    """
    ring = keyring(store, manifest, identity)
    if ring is None:
        raise ConfigError(f"data set {manifest.name} is not private: everybody can read it")
    kept = {(entry.grantee, entry.generation): entry for entry in _entries(store, manifest.root)}
    for generation in ring:
        wrapped = wrap_key(ring[generation], manifest.root, grantee)
        kept[grantee, generation] = Entry(grantee, generation, wrapped)
    _write(store, _path(store, manifest.root.hex()), _ENTRIES.encode(tuple(kept[at] for at in sorted(kept))))


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
