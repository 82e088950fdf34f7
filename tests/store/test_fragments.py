"""Erasure-coded data sets: any m fragments of a chunk may be lost, m + 1 are one clear error."""

from __future__ import annotations

import random

import pytest

from pydec.crypto.signing import SigningKey
from pydec.errors import ChunkError, ConfigError, StoreError
from pydec.store import adding, keys
from pydec.store.adding import add
from pydec.store.erasure import Code
from pydec.store.export import export
from pydec.store.fragments import decoded, remade
from pydec.store.inputs import open_input
from pydec.store.manifest import Manifest, Policy
from pydec.store.objects import digest_of
from pydec.store.reading import Samples
from pydec.store.shard import Index
from pydec.store.store import Store
from pydec.store.upkeep import copy, presence, repair, verify
from tests.store.cases import stop, tree, values, write

CHUNK = 6 * 4096
POLICY = Policy(replicas=4, parity=2)


@pytest.fixture
def folder(tmp_path):
    return write(
        tmp_path / "in", {f"{n:02}".encode(): random.Random(n).randbytes(n * 1500) for n in range(40)}
    )


def put(store: Store, folder: object, **options: object) -> Manifest:
    return add(store, open_input(str(folder)), "d", chunk_bytes=CHUNK, **{"policy": POLICY, **options})


def rows(store: Store, manifest: Manifest) -> list[list[bytes]]:
    """Fragments of each chunk."""
    shards = range(len(manifest.shards))
    return [row for number in shards for row in store.layout(manifest, number).index.fragment_names]


def lose(store: Store, manifest: Manifest, count: int, damaged: bool = False) -> list[bytes]:
    """Fragments of every chunk, drawn."""
    rng = random.Random(count)
    lost = [name for row in rows(store, manifest) for name in rng.sample(row, count)]
    for name in lost:
        path = store.objects.path(name)
        if damaged:
            path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
        else:
            path.unlink()
    return lost


def test_a_data_set_of_fragments_reads_and_exports_as_any_other(store, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 5 * CHUNK)
    manifest = put(store, folder)
    assert len(manifest.shards) > 3
    assert verify(store, manifest).whole
    assert dict(values(Samples(manifest, store.objects))) == tree(folder)
    export(Samples(manifest, store.objects), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
    on_disk = sum(store.objects.size(name) for row in rows(store, manifest) for name in row)
    assert 1.5 * manifest.head.n_bytes <= on_disk < 1.51 * manifest.head.n_bytes


@pytest.mark.parametrize("damaged", [False, True])
def test_as_many_fragments_as_parity_may_go_and_are_made_again(store, folder, damaged):
    manifest = put(store, folder)
    lost = lose(store, manifest, 2, damaged)
    assert dict(values(Samples(manifest, store.objects))) == tree(folder)
    report = verify(store, manifest)
    assert (report.whole, report.lost) == (False, [])
    assert presence(store, manifest)[3] == sum(
        Code(4, 2).fragment_bytes(n)
        for n in store.layout(manifest, 0).index.chunk_lengths.tolist()
        for _ in range(2)
    )
    report = repair(store, manifest, [])
    assert (report.whole, sorted(report.repaired)) == (True, sorted(lost))
    assert verify(store, manifest).whole


def test_one_fragment_more_is_one_clear_error_and_nothing_else_is_lost(store, folder):
    manifest = put(store, folder)
    chunks = store.layout(manifest, 0).index.names
    victims = rows(store, manifest)[3]
    for name in victims[1:4]:
        store.objects.path(name).unlink()
    words = "is lost: 3 of its 6 fragments are to be had, and 4 are needed"
    with pytest.raises(ChunkError, match=words) as caught:
        values(Samples(manifest, store.objects))
    assert caught.value.digest == chunks[3]
    assert verify(store, manifest).lost == [chunks[3]]
    report = repair(store, manifest, [])
    assert (report.lost, sorted(report.missing)) == ([chunks[3]], sorted(victims[1:4]))


def test_fragments_of_two_stores_together_are_enough(store, folder, tmp_path):
    manifest = put(store, folder)
    with Store(tmp_path / "other", create=True) as other:
        assert copy(other, manifest, [store.objects]).whole
        for row in rows(store, manifest):
            for name in row[:3]:
                store.objects.path(name).unlink()
            for name in row[2:]:
                other.objects.path(name).unlink()
        assert verify(other, manifest).lost
        assert verify(store, manifest).lost
        assert repair(store, manifest, [other.objects]).whole
        assert repair(other, manifest, [store.objects]).whole


def test_private_chunks_are_sealed_before_they_are_coded(store, folder):
    owner = SigningKey.generate()
    manifest = put(store, folder, private=owner)
    lose(store, manifest, 2)
    assert repair(store, manifest, []).whole
    lose(store, manifest, 1)
    ring = keys.keyring(store, manifest, owner)
    assert dict(values(Samples(manifest, store.objects, keys=ring))) == tree(folder)


def test_an_interrupted_add_goes_on_to_the_same_root(store, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 3 * CHUNK)
    with pytest.raises(KeyboardInterrupt):
        put(store, folder, progress=stop(300_000))
    root = put(store, folder).root
    with Store(tmp_path / "other", create=True) as other:
        assert put(other, folder).root == root


def test_chunks_that_would_make_large_indices_are_refused(store, folder):
    with pytest.raises(ConfigError, match=r"must be at least 24576 for erasure 4\+2"):
        add(store, open_input(str(folder)), "d", chunk_bytes=CHUNK - 1, policy=POLICY)
    with pytest.raises(ValueError, match="at most 32 fragments"):
        Policy(replicas=30, parity=3)


def test_fragments_that_give_another_chunk_are_the_makers_fault():
    code = Code(2, 1)
    one, two = code.encode(b"abcd"), code.encode(b"efgh")
    with pytest.raises(StoreError, match="its fragments give another one"):
        decoded(code, {0: one[0], 1: two[1]}, digest_of(b"abcd"), 4)
    with pytest.raises(StoreError, match="wrong from its making"):
        decoded(code, {0: one[0], 1: b"x"}, digest_of(b"abcd"), 4)
    names = [digest_of(one[0]), digest_of(one[1]), digest_of(two[2])]
    with pytest.raises(StoreError, match="its chunk gives another one"):
        remade(code, b"abcd", names, names[2:])


def test_an_index_of_fragments_has_one_encoding(store, folder):
    manifest = put(store, folder)
    data = store.objects.get(manifest.shards[0].index)
    index = Index.decode(data)
    assert index.encode() == data
    assert index.fragments is not None
    assert index.fragments.shape == (len(index.names), 6, 32)
    assert len(index.objects) == 6 * len(index.names)
