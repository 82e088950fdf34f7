"""What cannot be added is one error, and nothing half-added; what was interrupted goes on."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from pydec.errors import ConfigError, StoreError
from pydec.store import adding
from pydec.store.adding import add
from pydec.store.export import export
from pydec.store.inputs import open_input
from pydec.store.inputs.base import Input
from pydec.store.journal import unfinished
from pydec.store.manifest import Policy
from pydec.store.objects import Batch
from pydec.store.reading import Samples
from pydec.store.store import Store
from pydec.store.upkeep import verify
from tests.store.cases import CHUNK, FILES, put, stop, tree, values, write


def test_a_manifest_does_not_depend_on_how_often_an_add_was_interrupted(store, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 3 * CHUNK)
    folder = write(tmp_path / "in", {f"{n:03}".encode(): random.Random(n).randbytes(900) for n in range(60)})
    whole = put(store, folder, "whole", policy=Policy()).manifest
    with Store(tmp_path / "other", create=True) as other:
        begun, how = [], {"chunk_bytes": CHUNK, "policy": Policy()}

        def given() -> Input:
            return open_input(str(folder))

        for most in (5000, 20_000, 20_000, 40_000):
            with pytest.raises(KeyboardInterrupt):
                add(other, given(), "whole", progress=stop(most), **how)
            begun.append(len(unfinished(other)["whole"]))
            assert other.roots() == []
        assert begun == sorted(begun)
        assert begun[-1] >= 2
        written = []
        put_ = Batch.put

        def count(batch: Batch, data: bytes) -> bytes:
            written.append(len(data))
            return put_(batch, data)

        monkeypatch.setattr(Batch, "put", count)
        again = add(other, given(), "whole", **how)
        assert again.root == whole.root
        assert 0 < sum(written) < 0.6 * whole.head.n_bytes
        assert unfinished(other) == {}


def test_an_interrupted_add_begins_anew_if_the_data_changed(store, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)
    folder = write(tmp_path / "in", {f"{n}".encode(): bytes([n]) * 3000 for n in range(10)})

    with pytest.raises(KeyboardInterrupt):
        add(store, open_input(str(folder)), "d", chunk_bytes=CHUNK, progress=stop(20_000))
    (folder / "0").write_bytes(b"new" * 1000)
    assert dict(values(put(store, folder)))[b"0"] == b"new" * 1000


class Meddling:
    """Changes a file while it is added."""

    def __init__(self, change: object, after: int = 0) -> None:
        self.change, self.after = change, after

    def __call__(self, n_bytes: int) -> None:
        if self.change and n_bytes > self.after:
            self.change()
            self.change = None


@pytest.mark.parametrize("what", ["written", "grown", "gone", "new", "shrunk"])
def test_files_that_change_while_they_are_added_are_refused(store, tmp_path, what):
    folder = write(tmp_path / "in", {f"{n}".encode(): bytes([n]) * 3000 for n in range(4)})
    last = folder / "3"
    change = {
        "written": lambda: last.write_bytes(b"z" * 3000),
        "grown": lambda: last.write_bytes(b"z" * 4000),
        "shrunk": lambda: last.write_bytes(b""),
        "gone": last.unlink,
        "new": lambda: (folder / "2b").write_bytes(b"z"),
    }[what]
    os.utime(last, (1, 1))
    with pytest.raises(StoreError, match=r"changed while it was being added|No such file"):
        add(store, open_input(str(folder)), "d", chunk_bytes=CHUNK, progress=Meddling(change))
    assert store.roots() == []


def test_a_large_file_that_changes_while_it_is_read_is_refused(store, tmp_path, monkeypatch):
    path = tmp_path / "big"
    path.write_bytes(bytes(3 << 20))
    os.utime(path, (1, 1))
    put_ = Batch.put
    change = Meddling(lambda: path.write_bytes(bytes(3 << 20)))

    def meddle(batch: Batch, data: bytes) -> bytes:
        change(1)
        return put_(batch, data)

    monkeypatch.setattr(Batch, "put", meddle)
    with pytest.raises(StoreError, match="changed while it was being added"):
        put(store, path)
    assert store.roots() == []


def unreadable(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def folder_link(folder: Path) -> None:
    (folder / "again").symlink_to(folder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(unreadable, "cannot be read"), (pipe, "neither a file nor"), (folder_link, "a link to a folder")],
)
def test_what_cannot_be_a_sample_is_named(store, tmp_path, spoil, words):
    folder = write(tmp_path / "in", {b"a": b"1"})
    spoil(folder)
    with pytest.raises(StoreError, match=words):
        put(store, folder)
    assert (store.roots(), unfinished(store)) == ([], {})


def array(path: Path, data: object, **options: object) -> Path:
    np.save(path, data, **options)
    return path


BAD = {
    "empty folder": (lambda p: p.mkdir() or p, "", "holds no sample"),
    "no such path": (lambda p: p, "", "there is no file"),
    "objects": (lambda p: array(p / "x.npy", np.array([{}]), allow_pickle=True), "", "a data set holds"),
    "strings": (lambda p: array(p / "x.npy", np.array(["a"])), "", "a data set holds"),
    "one number": (lambda p: array(p / "x.npy", np.float64(1)), "", "one number"),
    "Fortran": (lambda p: array(p / "x.npy", np.ones((3, 4), order="F")), "", "Fortran"),
    "no numbers": (lambda p: array(p / "x.npy", np.ones((3, 0))), "", "which hold nothing"),
    "no rows": (lambda p: array(p / "x.npy", np.ones((0, 3))), "", "holds no sample"),
    "no NumPy file": (lambda p: write(p, {b"x.npy": b"hello"}) / "x.npy", "", "is no NumPy file"),
    "cut short": (lambda p: write(p, {b"x.npy": _npy()[:-1]}) / "x.npy", "", "ends before"),
    "too long": (lambda p: write(p, {b"x.npy": _npy() + b"1"}) / "x.npy", "", "more bytes"),
    "no archive": (lambda p: write(p, {b"x.npz": b"PK"}) / "x.npz", "", "cannot be read"),
    "no IDX": (lambda p: write(p, {b"x": b"hello"}) / "x", "idx", "is no IDX file"),
    "IDX cut": (lambda p: write(p, {b"x": b"\0\0\x08\x01\0\0\0\x09abc"}) / "x", "", "ends before"),
    "no UTF-8": (lambda p: write(p, {b"x": b"a\nb\n\xff\n"}) / "x", "text", "line 3 is not UTF-8"),
    "no table": (lambda p: write(p, {b"x.parquet": b"hello"}) / "x.parquet", "", "is no Parquet"),
    "no classes": (lambda p: write(p, {b"x.png": b"1"}), "images", "in no class's folder"),
    "a folder in it": (lambda p: write(p, {b"a/x": b"1"}), "text", "is no file"),
    "lengths differ": (lambda p: write(p, {b"x.npy": _npy(), b"y.npy": _npy(5)}), "", "has 5 rows"),
}


def _npy(rows: int = 4) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, np.arange(rows))
    return file.getvalue()


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_error_and_nothing_half_added(store, tmp_path, case):
    make, form, words = BAD[case]
    if case == "no table":
        pytest.importorskip("pyarrow")
    if case not in ("empty folder", "no such path"):
        (tmp_path / "in").mkdir()
    path = make(tmp_path / "in")
    with pytest.raises((StoreError, ConfigError), match=words):
        put(store, path, form=form)
    assert (store.roots(), unfinished(store)) == ([], {})


def test_a_name_can_be_used_once(store, tmp_path):
    put(store, write(tmp_path / "in", {b"a": b"1"}))
    with pytest.raises(ConfigError, match="has a data set 'd'"):
        put(store, write(tmp_path / "other", {b"a": b"2"}))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [("a/b", {}, "is no name"), ("", {}, "is no name"), ("d", {"chunk_bytes": 1}, "--chunk-bytes must be")],
)
def test_arguments_out_of_range_are_refused(store, tmp_path, name, options, words):
    with pytest.raises(ConfigError, match=words):
        add(store, open_input(str(write(tmp_path / "in", {b"a": b"1"}))), name, **options)


def test_a_sample_with_too_many_chunks_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "MOST_CHUNKS", 3)
    folder = write(tmp_path / "in", {b"a": b"1", b"b": bytes(4 * CHUNK)})
    with pytest.raises(StoreError, match="makes more than 3 chunks"):
        put(store, folder)
    assert store.roots() == []


def test_a_sample_larger_than_a_shard_is_a_shard_of_its_own(store, tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)
    files = {b"a": b"1", b"b": random.Random(3).randbytes(9 * CHUNK), b"c": b"2"}
    samples = put(store, write(tmp_path / "in", files))
    assert dict(values(samples)) == files
    assert [shard.samples for shard in samples.manifest.shards] == [1, 1, 1]
    export(samples, tmp_path / "out")
    assert tree(tmp_path / "out") == files


@pytest.mark.parametrize("seed", range(6))
def test_samples_that_fit_are_never_cut(store, tmp_path, seed, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 5 * CHUNK)
    monkeypatch.setattr(adding, "MOST_LENGTHS", 150)
    rng = random.Random(seed)
    most = rng.choice([30, 2000, 3 * CHUNK])
    files = {f"{n:04}".encode(): rng.randbytes(rng.randrange(most)) for n in range(200)}
    samples = put(store, write(tmp_path / "in", files))
    assert dict(values(samples)) == files
    for number, content in enumerate(files.values()):
        shard, chunk = samples.place(number)
        layout = store.layout(samples.manifest, shard)
        first = sum(s.samples for s in samples.manifest.shards[:shard])
        _, at, size = layout.pieces(number - first)
        if size <= CHUNK and size:
            assert at + size <= layout.index.chunk_lengths[chunk]
        assert size == len(content) + 4


def test_equal_chunks_are_stored_once(store, tmp_path):
    folder = write(tmp_path / "in", {b"a": b"x" * CHUNK * 8})
    put(store, folder, "one")
    before = len(list(store.objects.names()))
    put(store, folder, "two")
    assert len(list(store.objects.names())) == before
    assert before <= 4


def test_equal_large_files_share_their_chunks_whatever_their_names(store, tmp_path):
    content = random.Random(7).randbytes((2 << 20) + 500)
    folder = write(tmp_path / "in", {b"a": content, b"another": content, b"b": b"x" * 100})
    samples = put(store, folder)
    assert dict(values(samples)) == {b"a": content, b"another": content, b"b": b"x" * 100}
    assert len(list(store.objects.names())) <= len(content) // CHUNK + 6
    export(samples, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_removing_frees_what_nobody_else_needs(store, tmp_path):
    one = put(
        store, write(tmp_path / "in", {b"a": b"x" * CHUNK * 8, b"b": random.Random(5).randbytes(9000)}), "one"
    )
    put(store, write(tmp_path / "other", {b"a": b"x" * CHUNK * 8}), "two")
    with store.lock():
        store.forget(one.manifest.root)
        assert store.collect() > 2
    assert verify(store, store.find("two")).whole
    with pytest.raises(ConfigError, match="no data set 'one'"):
        store.find("one")


def test_one_process_adds_at_a_time(store, tmp_path):
    folder = write(tmp_path / "in", {b"a": b"1"})
    with store.lock(), pytest.raises(StoreError, match="another process adds or removes"):
        put(store, folder)


def test_an_export_that_fails_leaves_nothing(store, tmp_path):
    samples = put(store, write(tmp_path / "in", FILES))
    victim = next(store.objects.names())
    store.objects.path(victim).unlink()
    with pytest.raises(StoreError, match="is not in"):
        export(Samples(samples.manifest, store.objects), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store", "in"] or not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        export(samples, tmp_path / "out")


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a/../../x", b"", b"a//b", b"a/./b", b"x\0y"])
def test_an_export_does_not_leave_its_folder(store, tmp_path, path, monkeypatch):
    samples = put(store, write(tmp_path / "in", {b"a": b"1"}))
    monkeypatch.setattr(samples, "pieces", lambda number, field: iter([path if field == 0 else b"1"]))
    with pytest.raises(StoreError, match="leads out of the folder"):
        export(samples, tmp_path / "out")
    assert not (tmp_path / "out").exists()
