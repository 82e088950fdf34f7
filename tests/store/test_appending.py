"""A data set that extends another one: new samples alone are written, both are read, one root fixes both."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError
from pydec.store import adding
from pydec.store.adding import add
from pydec.store.export import export
from pydec.store.inputs import open_input
from pydec.store.manifest import Manifest, Policy
from pydec.store.reading import Samples
from pydec.store.upkeep import objects_of, verify
from tests.store.cases import CHUNK, put, stop, tree, values, write


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 3 * CHUNK)


def files(first: int, count: int) -> dict[bytes, bytes]:
    return {b"%03d" % n: random.Random(n).randbytes(1000 + 300 * n) for n in range(first, first + count)}


def append(store, path, name: str, parent: Manifest, **options: object) -> Samples:
    manifest = add(store, open_input(str(path)), name, onto=parent, **options)
    assert Manifest.decode(manifest.encode()) == manifest
    return Samples(manifest, store.objects)


def test_only_the_new_is_written_and_both_are_read(store, tmp_path):
    old = put(store, write(tmp_path / "old", files(0, 8)), policy=Policy(replicas=2))
    before = set(store.objects.names())
    new = append(store, write(tmp_path / "new", files(8, 5)), "longer", old.manifest)
    alone = put(store, tmp_path / "new", "alone")
    assert values(new) == values(old) + values(alone)
    assert new.manifest.head.policy == Policy(replicas=2, parent=old.manifest.root)
    assert new.manifest.shards[: len(old.manifest.shards)] == old.manifest.shards
    written = set(objects_of(store, new.manifest)) - before
    assert written == set(objects_of(store, alone.manifest))
    assert verify(store, new.manifest).whole
    export(new, tmp_path / "out")
    assert tree(tmp_path / "out") == files(0, 13)
    third = append(store, write(tmp_path / "third", files(13, 2)), "third", new.manifest)
    assert len(third) == 15
    assert third.manifest.head.policy.parent == new.manifest.root


def test_it_is_whole_without_its_parent(store, tmp_path):
    old = put(store, write(tmp_path / "old", files(0, 8)))
    wanted = values(old)
    new = append(store, write(tmp_path / "new", files(8, 5)), "longer", old.manifest)
    with store.lock():
        store.forget(old.manifest.root)
        assert store.collect() == 0
    assert verify(store, new.manifest).whole
    assert values(new)[:8] == wanted


def test_arrays_come_back_beside_one_another(store, tmp_path):
    for name, rows in (("old", 10), ("new", 7)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", np.arange(rows * 3.0).reshape(rows, 3))
    old = put(store, tmp_path / "old")
    new = append(store, tmp_path / "new", "longer", old.manifest)
    assert len(new) == 17
    export(new, tmp_path / "out")
    for name, rows in (("x.npy", 10), ("x-2.npy", 7)):
        np.testing.assert_array_equal(
            np.load(tmp_path / "out" / name), np.arange(rows * 3.0).reshape(rows, 3)
        )


def test_of_two_files_of_one_path_the_later_comes_back(store, tmp_path):
    old = put(store, write(tmp_path / "old", {b"a": b"old", b"b": b"2"}))
    new = append(store, write(tmp_path / "new", {b"a": b"new"}), "longer", old.manifest)
    export(new, tmp_path / "out")
    assert tree(tmp_path / "out") == {b"a": b"new", b"b": b"2"}


def test_an_interrupted_append_goes_on(store, tmp_path):
    old = put(store, write(tmp_path / "old", files(0, 8)))
    write(tmp_path / "new", files(8, 12))
    with pytest.raises(KeyboardInterrupt):
        append(store, tmp_path / "new", "longer", old.manifest, progress=stop(30_000))
    new = append(store, tmp_path / "new", "longer", old.manifest)
    assert dict(values(new)) == files(0, 20)


def test_what_does_not_fit_is_refused(store, tmp_path):
    old = put(store, write(tmp_path / "old", files(0, 3))).manifest
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    for path, options, words in (
        (tmp_path / "x.npy", {}, "its kind files and those of the new data numpy differ"),
        (tmp_path / "old", {"private": SigningKey.generate()}, "--private --extends d"),
        (tmp_path / "old", {"policy": Policy(replicas=2, parity=1)}, "it is kept with --replicas 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            append(store, path, "longer", old, **options)
    with pytest.raises(ConfigError, match="has a data set 'd'"):
        append(store, tmp_path / "old", "d", old)
    floats = put(store, tmp_path / "x.npy", "floats").manifest
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    with pytest.raises(ConfigError, match="its fields"):
        append(store, tmp_path / "x.npy", "longer", floats)
    assert len(store.roots()) == 2


def test_fragments_go_on_as_fragments(store, tmp_path):
    code = Policy(replicas=2, parity=1)
    given = open_input(str(write(tmp_path / "old", files(0, 8))))
    old = add(store, given, "d", policy=code, chunk_bytes=4 * CHUNK)
    new = append(store, write(tmp_path / "new", files(8, 5)), "longer", old)
    assert new.manifest.head.policy == Policy(replicas=2, parity=1, parent=old.root)
    with pytest.raises(ConfigError, match=r"it is kept with --erasure 2\+1"):
        append(store, tmp_path / "new", "other", old, policy=Policy(replicas=2, parity=2))
    assert dict(values(new)) == files(0, 13)
