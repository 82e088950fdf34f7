"""The tasks that pydec brings along read what they say and refuse what they cannot read."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch

from pydec.errors import ConfigError, SetupError
from pydec.train.tasks import fashion_mnist, make, stdlib_lm
from pydec.train.transformer import ByteTransformer


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def clothes(tmp_path):
    """A directory like Debian's, with 30 training and 20 test images."""
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def test_fashion_mnist_reads_packed_and_unpacked_files(clothes):
    task = make("fashion-mnist:samples=25", data=str(clothes))
    assert task.samples == 25
    image, label = task.train[7]
    assert image.shape == (1, 28, 28)
    assert image.dtype == torch.float32
    assert label == 7
    assert sum(p.numel() for p in task.model.parameters()) == 421_642
    assert task.model(image.unsqueeze(0)).shape == (1, 10)


def test_fashion_mnist_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(SetupError, match=r"apt-get install dataset-fashion-mnist.*--data DIR"):
        make("fashion-mnist", data=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8bnonsense", "cannot be read"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd"), "is no IDX file of unsigned bytes"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "is no IDX file"),
        (
            gzip.compress(idx(np.zeros((3, 28, 28), np.uint8))[:-1]),
            "holds 2351 bytes, its header says 2352",
        ),
        (gzip.compress(idx(np.zeros((3, 28, 27), np.uint8))), "are not Fashion-MNIST"),
        (gzip.compress(idx(np.zeros((3, 28, 28), np.uint8)))[:-12], "cannot be read"),
    ],
    ids=["nonsense", "type", "header", "short", "shape", "cut"],  # gzip's bytes hold the time
)
def test_damaged_files_are_named(clothes, content, message):
    (clothes / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(SetupError, match=message):
        make("fashion-mnist", data=str(clothes))


def test_samples_out_of_range(clothes):
    with pytest.raises(ConfigError, match=r"samples must be in \[0, 30\], got 31"):
        make("fashion-mnist:samples=31", data=str(clothes))


def test_accuracy_is_the_fraction_that_is_right():
    logits = torch.eye(4)
    assert fashion_mnist.accuracy(logits, torch.tensor([0, 1, 2, 0])).item() == 0.75


@pytest.fixture
def sources(tmp_path):
    for i in range(40):
        folder = tmp_path / ("json" if i % 2 else ".")
        folder.mkdir(exist_ok=True)
        (folder / f"file{i:02d}.py").write_text(f"# file {i}\n" + "x = 1\n" * 20)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_skipped.py").write_text("assert False\n" * 100)
    return tmp_path


def test_stdlib_lm_splits_by_file_in_a_fixed_order(sources):
    files = stdlib_lm.sources(sources)
    assert [path.name for path in files] == sorted(
        path.name for path in files if path.parent == sources
    ) + sorted(path.name for path in files if path.parent != sources)
    assert not any("skipped" in path.name for path in files)
    task = make("stdlib-lm:width=8,heads=1,layers=1,context=16", data=str(sources))
    again = make("stdlib-lm:width=8,heads=1,layers=1,context=16", data=str(sources))
    assert task.facts == again.facts
    assert task.facts["files"] + task.facts["validation_files"] == 40
    x, y = task.train[3]
    assert x[1:].tolist() == y[:-1].tolist()
    batch = task.train.batch(torch.tensor([3, 5]))  # type: ignore[attr-defined]
    assert batch[0][0].tolist() == x.tolist()
    assert task.labels is not None
    assert sorted(set(task.labels.tolist())) == [0, 1]


def test_stdlib_lm_keeps_a_sample_of_windows_for_validation(sources):
    task = make("stdlib-lm:width=8,heads=1,layers=1,context=4,windows=7", data=str(sources))
    assert len(task.validation) == 7  # type: ignore[arg-type]


def test_stdlib_lm_without_sources_says_so(tmp_path):
    with pytest.raises(SetupError, match=r"too few Python sources in .*: 0 files"):
        make("stdlib-lm", data=str(tmp_path))
    with pytest.raises(SetupError, match=r"no directory .*absent"):
        make("stdlib-lm", data=str(tmp_path / "absent"))


def test_the_transformer_is_causal():
    torch.manual_seed(0)
    model = ByteTransformer(16, 2, 2, 12)
    a = torch.randint(0, 256, (1, 12))
    b = a.clone()
    b[0, 8:] = 0
    with torch.no_grad():
        before, after = model(a), model(b)
    torch.testing.assert_close(before[0, :8], after[0, :8])
    assert not torch.allclose(before[0, 8:], after[0, 8:])


def test_the_transformer_refuses_sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"width must be a multiple of 2 \* heads.*got width=10"):
        ByteTransformer(10, 1, 4, 8)
