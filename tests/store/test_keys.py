"""Private data: sealed on disk, verified without a key, read by its owner and by whom that lets in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pydec.crypto.signing import SigningKey
from pydec.errors import AccessDenied, ConfigError, StoreError
from pydec.store import Dataset, adding, keys
from pydec.store.adding import add
from pydec.store.export import export
from pydec.store.inputs import open_input
from pydec.store.journal import unfinished
from pydec.store.manifest import MOST_BYTES, Manifest
from pydec.store.reading import Samples
from pydec.store.store import Store
from pydec.store.upkeep import copy, verify
from tests.store.cases import CHUNK, FILES, stop, tree, values, write

OWNER, READER, STRANGER = (SigningKey.generate() for _ in range(3))


@pytest.fixture
def private(store, tmp_path, monkeypatch) -> Manifest:
    monkeypatch.setattr(adding, "SHARD_BYTES", 5 * CHUNK)
    given = open_input(str(write(tmp_path / "in", {**FILES, b"secret": b"the password" * 100})))
    return add(store, given, "d", chunk_bytes=CHUNK, private=OWNER)


def opened(store: Store, manifest: Manifest, identity: SigningKey) -> Samples:
    return Samples(manifest, store.objects, keys=keys.keyring(store, manifest, identity))


def test_chunks_are_sealed_and_their_owner_reads_them(store, private, tmp_path):
    assert private.head.policy.owner == OWNER.public
    for name in store.objects.names():
        assert b"password" not in store.objects.get(name)
    samples = opened(store, private, OWNER)
    assert dict(values(samples)) == {**FILES, b"secret": b"the password" * 100}
    export(samples, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "in")


def test_who_was_not_granted_it_is_named(store, private):
    with pytest.raises(AccessDenied, match="may not read the data set"):
        keys.keyring(store, private, READER)
    with pytest.raises(ConfigError, match="is private: name the key"):
        keys.keyring(store, private, None)
    with pytest.raises(ConfigError, match="is private"):
        Samples(private, store.objects)
    with pytest.raises(AccessDenied):
        keys.grant(store, private, STRANGER, STRANGER.public)
    keys.grant(store, private, OWNER, READER.public)
    assert len(values(opened(store, private, READER))) == len(FILES) + 1
    with pytest.raises(AccessDenied):
        keys.keyring(store, private, STRANGER)


def test_a_revoked_reader_opens_nothing_here_and_new_data_has_another_key(store, private, tmp_path):
    keys.grant(store, private, OWNER, READER.public)
    keys.grant(store, private, OWNER, STRANGER.public)
    with pytest.raises(AccessDenied, match="to be its owner"):
        keys.revoke(store, private, READER, STRANGER.public)
    kept = keys.keyring(store, private, STRANGER)
    assert kept is not None
    new = keys.revoke(store, private, OWNER, STRANGER.public)
    assert (new.generation, keys.readers(store, private.root, 1)) == (1, {OWNER.public, READER.public})
    with pytest.raises(AccessDenied):
        keys.keyring(store, private, STRANGER)
    with pytest.raises(ConfigError, match="is no reader of d beside its owner"):
        keys.revoke(store, private, OWNER, STRANGER.public)
    newest = keys.keyring(store, private, OWNER)[1]
    write(tmp_path / "more", {b"a": b"newer" * 100})
    given = open_input(str(tmp_path / "more"))
    more = add(store, given, "e", chunk_bytes=CHUNK, private=OWNER, extends=(private, newest))
    assert more.head.policy.parent == private.root
    assert dict(values(opened(store, more, READER))) == {b"a": b"newer" * 100}
    with pytest.raises(AccessDenied):
        keys.keyring(store, more, STRANGER)
    chunk = store.objects.get(next(iter(store.layout(more, 0).index.names)))
    with pytest.raises(AccessDenied, match="generation 1"):
        kept.decrypt_chunk(0, chunk)


def test_a_ledger_that_says_who_reads_leaves_the_owner_alone_here(store, private):
    keys.grant(store, private, OWNER, READER.public)
    keys.bind(store, private.root, bytes([7]) * 32, OWNER.public)
    assert keys.readers(store, private.root) == {OWNER.public}
    with pytest.raises(AccessDenied, match="on the ledger of chain 0707070707070707, named with --ledger"):
        keys.keyring(store, private, READER)
    for change in (keys.grant, keys.revoke):
        with pytest.raises(ConfigError, match="the ledger of chain 0707070707070707 says who reads d"):
            change(store, private, OWNER, READER.public)
    keys.forget(store, "d", private.root)
    assert keys.chain(store, private.root) == b""


def test_without_a_key_it_is_verified_copied_and_repaired(store, private, tmp_path):
    assert verify(store, private).whole
    with Store(tmp_path / "other", create=True) as other:
        assert copy(other, private, [store.objects]).whole
        assert verify(other, other.find("d")).whole
        with pytest.raises(AccessDenied):
            keys.keyring(other, private, OWNER)


def test_an_interrupted_private_add_goes_on_with_its_key(store, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 3 * CHUNK)
    given = str(write(tmp_path / "in", {f"{n:02}".encode(): bytes([n]) * 3000 for n in range(20)}))
    with pytest.raises(KeyboardInterrupt):
        add(store, open_input(given), "d", chunk_bytes=CHUNK, private=OWNER, progress=stop(30_000))
    begun = unfinished(store)["d"]
    assert len(begun) > 1
    with pytest.raises(StoreError, match="was begun with another key"):
        add(store, open_input(given), "d", chunk_bytes=CHUNK, private=READER)
    manifest = add(store, open_input(given), "d", chunk_bytes=CHUNK, private=OWNER)
    assert manifest.shards[: len(begun)] == tuple(begun)
    assert [content for _, content in values(opened(store, manifest, OWNER))] == [
        bytes([n]) * 3000 for n in range(20)
    ]
    assert [path.name for path in (store.directory / "keys").iterdir()] == [manifest.root.hex()]


def test_the_same_data_of_another_add_looks_different(store, private, tmp_path):
    again = add(store, open_input(str(tmp_path / "in")), "again", chunk_bytes=CHUNK, private=OWNER)
    names = [set(store.layout(m, n).index.names) for m in (private, again) for n in range(len(m.shards))]
    assert not set().union(*names[: len(private.shards)]) & set().union(*names[len(private.shards) :])


def test_a_chunk_in_another_place_is_refused(store, private):
    samples = opened(store, private, OWNER)
    layout = max(
        (samples._layout(n) for n in range(len(private.shards))), key=lambda at: len(at.index.chunks)
    )
    sizes, chunks = layout.index.chunk_lengths, layout.index.chunks.copy()
    one, other = np.flatnonzero(sizes == sizes.max())[:2].tolist()
    chunks[[one, other]] = chunks[[other, one]]
    layout.index = dataclasses.replace(layout.index, chunks=chunks)
    with pytest.raises(StoreError, match=r"misplaced|forged"):
        samples.chunk(layout, one)


def test_a_data_set_is_read_with_a_key(store, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5000.0))
    add(store, open_input(str(tmp_path / "x.npy")), "x", chunk_bytes=CHUNK, private=OWNER)
    data = Dataset("x", store=store.directory, key=OWNER)
    assert torch.equal(data.batch([4999, 0])[0], torch.tensor([4999.0, 0.0], dtype=torch.float64))
    with pytest.raises(ConfigError, match="is private"):
        Dataset("x", store=store.directory)


def test_what_is_damaged_or_too_large_is_named(store, private, tmp_path):
    path = store.directory / "keys" / private.root.hex()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        keys.keyring(store, private, OWNER)
    with pytest.raises(ConfigError, match="--chunk-bytes must be"):
        add(store, open_input(str(tmp_path / "in")), "big", chunk_bytes=MOST_BYTES, private=OWNER)
