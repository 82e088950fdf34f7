"""Reading as torch does: plain DataLoaders with workers, one order everywhere, and going on after a stop."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pydec.errors import ChunkError, ConfigError
from pydec.store import Dataset, Sampler, Stream
from tests.store.cases import CHUNK, put, write
from tests.store.test_inputs import idx_files

ROWS = 600


@pytest.fixture
def arrays(store, tmp_path):
    """Rows whose label is their number, in a dozen chunks."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 4, 5)).astype(np.float32)
    np.save(tmp_path / "in" / "label.npy", np.arange(ROWS))
    np.save(tmp_path / "in" / "x.npy", x)
    put(store, tmp_path / "in")
    return x


def opened(store, **options):
    return Dataset("d", store=store.directory, **options)


def labels(batches) -> list[int]:
    return [int(label) for batch in batches for label in batch[0]]


def test_samples_are_tuples_of_tensors(store, arrays):
    data = opened(store)
    assert len(data) == ROWS
    label, x = data[7]
    assert (label.dtype, label.shape, int(label)) == (torch.int64, (), 7)
    np.testing.assert_array_equal(x.numpy(), arrays[7])
    x += 1  # nobody else's memory
    np.testing.assert_array_equal(data[7][1].numpy(), arrays[7])
    assert int(data[-1][0]) == ROWS - 1
    for number in (ROWS, -ROWS - 1):
        with pytest.raises(IndexError, match=f"outside the {ROWS} "):
            data[number]


def test_a_batch_is_what_collating_its_samples_gives(store, arrays):
    data = opened(store, fields=["x", "label"])
    numbers = torch.tensor([5, 599, 5, 0, 311])
    ours = data.batch(numbers)
    theirs = torch.utils.data.default_collate([data[int(n)] for n in numbers])
    assert [t.dtype for t in ours] == [t.dtype for t in theirs] == [torch.float32, torch.int64]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_bytes_and_text_and_transforms(store, tmp_path):
    put(store, write(tmp_path / "in", {b"a": b"1", b"b": b"22"}))
    assert list(map(opened(store).__getitem__, range(2))) == [(b"a", b"1"), (b"b", b"22")]
    data = opened(store, fields=["content"], transform=lambda sample: len(sample[0]))
    assert torch.equal(data.batch([1, 0]), torch.tensor([2, 1]))


def test_parts_are_the_samples_of_some_files(store, tmp_path):
    put(store, write(tmp_path / "in", idx_files(np.random.default_rng(0))))
    assert [len(opened(store, part=part)) for part in ("t10k", "train", "")] == [5, 30, 35]
    train, whole = opened(store, part="train"), opened(store)
    assert torch.equal(train[0][0], whole[5][0])
    order = train.order(0, 0)
    np.testing.assert_array_equal(np.sort(order(0, 30)), np.arange(30))
    with pytest.raises(ConfigError, match="no source file that begins with 'test'; it has t10k-images"):
        opened(store, part="test")


def test_what_is_not_there_is_named(store, arrays):
    with pytest.raises(ConfigError, match="no field 'y'; it has label, x"):
        opened(store, fields=["y"])
    with pytest.raises(ConfigError, match="no data set 'e'"):
        Dataset("e", store=store.directory)
    with pytest.raises(ConfigError, match="there is no store"):
        Dataset("d", store=store.directory / "nothing")


def test_damage_is_found_before_it_is_used(store, arrays):
    data = opened(store)
    for name in list(store.objects.names()):
        path = store.objects.path(name)
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
    with pytest.raises(ChunkError, match="damaged"):
        data[0]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader_reads_every_sample_once_in_one_order(store, arrays, workers):
    data = opened(store)
    parts = []
    for rank in range(3):
        sampler = Sampler(data, seed=1, rank=rank, size=3)
        loader = DataLoader(data, batch_size=32, sampler=sampler, num_workers=workers)
        batches = list(loader)
        for label, x in batches:
            np.testing.assert_array_equal(x.numpy(), arrays[label.numpy()])
        parts.append(labels(batches))
    assert sorted(label for part in parts for label in part) == list(range(ROWS))
    assert [len(part) for part in parts] == [200] * 3
    assert [label for part in parts for label in part] == data.order(1, 0)(0, ROWS).tolist()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_stream_gives_the_same_batches_with_any_number_of_workers(store, arrays, workers):
    data = opened(store)
    stream = data.stream(48, seed=2, rank=1, size=2)
    expected = data.order(2, 0)(300, 600).tolist()
    found = list(DataLoader(stream, batch_size=None, num_workers=workers) if workers else stream)
    assert len(stream) == len(found) == 7
    assert labels(found) == expected
    short = data.stream(48, seed=2, rank=1, size=2, drop_last=True)
    assert len(short) == len(list(short)) == 6


def test_epochs_have_orders_of_their_own(store, arrays):
    stream = opened(store).stream(100, seed=3)
    orders = []
    for epoch in range(3):
        stream.set_epoch(epoch)
        orders.append(tuple(labels(stream)))
    assert len(set(orders)) == 3
    plain = opened(store).stream(100, shuffle=False)
    assert labels(plain) == list(range(ROWS))


@pytest.mark.parametrize("seen", [0, 1, 3, 7])
def test_a_stream_goes_on_where_it_was(store, arrays, seen):
    data = opened(store)
    stream = data.stream(48, seed=4, rank=0, size=2)
    stream.set_epoch(5)
    whole = labels(stream)
    state = pickle.loads(pickle.dumps(stream.state_dict(seen)))
    again = Stream(data, 48, seed=0, rank=0, size=2)
    again.load_state_dict(state)
    assert labels(again) == whole[48 * seen :]
    twice = Stream(data, 48, seed=0, rank=0, size=2)
    if seen < 6:
        twice.load_state_dict(again.state_dict(1))
        assert labels(twice) == whole[48 * (seen + 1) :]


def test_another_number_of_ranks_goes_on_with_what_is_left(store, arrays):
    data = opened(store)
    taken, seen, state = [60, 96, 0], [], {}
    for rank, count in enumerate(taken):
        sampler = Sampler(data, seed=5, rank=rank, size=3)
        seen += list(sampler)[:count]
        state = sampler.state_dict(count)
    rest = []
    for rank in range(2):
        sampler = Sampler(data, rank=rank, size=2)
        sampler.load_state_dict(state, taken=taken)
        rest += list(sampler)
        assert len(sampler) == (ROWS - sum(taken)) // 2
    assert sorted(seen + rest) == list(range(ROWS))
    with pytest.raises(ConfigError, match="one of 3 ranks, now there are 2"):
        Sampler(data, size=2).load_state_dict(state)


def test_the_position_of_another_data_set_is_refused(store, arrays, tmp_path):
    state = Sampler(opened(store)).state_dict(3)
    put(store, write(tmp_path / "more", {b"a": b"1"}), "other")
    with pytest.raises(ConfigError, match="the position is of data set"):
        Sampler(Dataset("other", store=store.directory)).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"rank must be in \[0, 2\), got 2"):
        Sampler(opened(store), rank=2, size=2)


def test_the_cache_has_its_limit(store, arrays):
    data = opened(store, cache_bytes=3 * CHUNK)
    for number in range(0, ROWS, 7):
        data[number]
        samples = data._open()
        assert samples._held <= 3 * CHUNK
        assert samples._held == sum(map(len, samples._chunks.values()))


def test_a_chunk_is_read_once_although_many_threads_want_it(store, arrays):
    data = opened(store)
    reads: list[bytes] = []
    get = store.objects.get

    class Counting:
        def get(self, digest: bytes) -> bytes:
            reads.append(digest)
            return get(digest)

    data = opened(store, reader=Counting())
    assert sorted(labels(data.stream(50, threads=8, ahead=8))) == list(range(ROWS))
    chunks = {name for name in reads if reads.count(name) > 1}
    assert chunks <= {shard.index for shard in data.manifest.shards}


def test_only_reading_imports_torch():
    code = (
        "import sys, pydec.store, pydec.store.adding, pydec.store.export, pydec.store.upkeep, "
        "pydec.store.order\n"
        "import pydec.store.placement, pydec.store.inputs.python\n"
        "assert 'torch' not in sys.modules\npydec.store.Dataset\nassert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
