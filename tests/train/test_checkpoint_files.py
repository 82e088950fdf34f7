"""Checkpoint files: plain torch reads them, one wrong byte is found and named, a half-written one is none."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load_file

from pydec.crypto.hashing import file_root
from pydec.errors import ConfigError, SetupError
from pydec.train.checkpoint_files import FORMAT, Store
from pydec.train.checkpoint_layout import Layout, difference, shapes
from pydec.train.rundir import RunDir


def example() -> dict[str, torch.Tensor]:
    return {
        "weight": torch.randn(3, 5, generator=torch.Generator().manual_seed(1)),
        "scale": torch.tensor(2.5),
        "half": torch.arange(7).to(torch.bfloat16),
        "wide": torch.arange(3, dtype=torch.float64),
        "count": torch.tensor(9),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 4),
        "image": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "pydec/bytes": torch.arange(5, dtype=torch.uint8),
    }


@pytest.fixture
def store(tmp_path):
    return Store(RunDir(tmp_path / "run"))


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_plain_torch_reads_what_was_written_either_way(store):
    tensors = example()
    layout = Layout(tensors)
    buffer = layout.buffer()
    layout.fill(buffer, tensors)
    first = store.write_buffer(4, 0, buffer, {"size": 2})
    store.write_tensors(4, 1, tensors, {"size": 2})
    for rank in range(2):
        assert same(load_file(store.path(4, rank)), tensors)
        assert same(store.tensors(4, rank), tensors)
        assert store.verify(4, rank)["size"] == 2
    assert store.path(4, 0).read_bytes() == store.path(4, 1).read_bytes()
    assert store.path(4, 0).stat().st_size == layout.nbytes
    assert len(first) == 32
    assert store.manifest(4, 0)["tensors"]["blake3"] == file_root(store.path(4, 0)).hex()


def test_a_type_that_the_format_lacks_is_named():
    with pytest.raises(ConfigError, match=r"phase is a torch.strided tensor of torch.complex64"):
        Layout({"phase": torch.zeros(2, dtype=torch.complex64)})


def test_the_newest_step_that_has_a_manifest_comes_first(store):
    for step in (8, 16, 100):
        store.write_tensors(step, 0, example(), {"members": [0, 1, 3]})
    store.path(24, 0).parent.mkdir()
    store.path(24, 0).write_bytes(b"half a fi")
    assert store.steps() == [100, 16, 8]
    assert store.members(16) == [0, 1, 3]
    assert (store.members(24), store.ranks(16)) == ([], [0])
    store.remove(16, 0)
    assert store.steps() == [100, 8]
    assert not store.path(16, 0).parent.exists()


def test_ranks_that_remove_at_once_do_not_trip_over_one_another(store):
    for rank in range(2):
        store.write_tensors(1, rank, example(), {"members": [0, 1]})
    leftover = store.path(1, 0).with_name(".rank-0.json.77.tmp")
    leftover.write_bytes(b"{")
    store.remove(1, 0)
    assert not leftover.exists()
    assert store.ranks(1) == [1]
    store.remove(1, 1)
    store.remove(1, 0)  # the folder is gone
    assert (store.folders(), store.ranks(1)) == ([], [])


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_every_flipped_byte_is_found(store, suffix):
    tensors = {"weight": torch.arange(6.0)}
    store.write_tensors(1, 0, tensors, {"size": 1, "numbers": [1.5, "x"]})
    path = store.path(1, 0, suffix)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if suffix == "json" and json_equal(path.read_bytes(), whole):
            continue  # white space
        with pytest.raises((SetupError, ConfigError), match=r"rank-0\."):
            store.verify(1, 0)
    path.write_bytes(whole)
    store.verify(1, 0)


def json_equal(a: bytes, b: bytes) -> bool:
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


def test_what_is_missing_short_or_misplaced_is_said(store):
    store.write_tensors(1, 0, example(), {"size": 1})
    with pytest.raises(SetupError, match=r"step-1/rank-1.json is missing: the checkpoint was never finished"):
        store.verify(1, 1)
    store.path(1, 1, "json").write_bytes(store.path(1, 0, "json").read_bytes())
    with pytest.raises(SetupError, match="is of step 1, rank 0: it is in the wrong place"):
        store.verify(1, 1)
    path = store.path(1, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(SetupError, match=f"it has {len(whole) - 3} bytes of {len(whole)}"):
        store.verify(1, 0)
    path.unlink()
    with pytest.raises(SetupError, match=r"rank-0.safetensors is missing, and its manifest is there"):
        store.verify(1, 0)


def test_a_newer_format_names_the_version_that_wrote_it(store):
    store.write_tensors(1, 0, example(), {"size": 1})
    path = store.path(1, 0, "json")
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "pydec_checkpoint": FORMAT + 1, "pydec": "9.1"})
    )
    with pytest.raises(
        ConfigError, match=f"has format {FORMAT + 1}, written by pydec 9.1, .*up to format {FORMAT}"
    ):
        store.manifest(1, 0)


def test_a_full_disk_leaves_the_old_checkpoint(store, monkeypatch):
    store.write_tensors(1, 0, example(), {"size": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SetupError, match="the disk is full"):
        store.write_tensors(2, 0, example(), {"size": 1})
    assert store.steps() == [1]
    store.verify(1, 0)
    assert list(store.path(2, 0).parent.iterdir()) == []


def test_the_first_difference_of_two_models_is_named():
    mine = shapes({"a": torch.zeros(2), "b": torch.zeros(3, 4)})
    assert difference(mine, mine) == ""
    assert difference(shapes({"a": torch.zeros(2), "b": torch.zeros(3, 5)}), mine) == (
        "b is float32 of shape (3, 5) in the checkpoint and float32 of shape (3, 4) here"
    )
    assert difference(shapes({"a": torch.zeros(2)}), mine) == (
        "b is missing in the checkpoint and float32 of shape (3, 4) here"
    )


def test_the_header_is_aligned_and_says_its_length():
    layout = Layout(example())
    assert len(layout.header) % 64 == 0
    assert struct.unpack("<Q", layout.header[:8])[0] == len(layout.header) - 8
