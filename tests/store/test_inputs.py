"""Everything that can be added comes back as it was."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from pydec.errors import ConfigError, SetupError, StoreError
from pydec.store.adding import add
from pydec.store.export import export
from pydec.store.inputs import open_input
from pydec.store.reading import Samples
from tests.store.cases import FILES, put, tree, values, write


def test_any_folder_comes_back_byte_for_byte(store, tmp_path):
    samples = put(store, write(tmp_path / "in", FILES))
    found = dict(values(samples))
    assert found == FILES
    assert list(found) == sorted(FILES, key=lambda path: path.split(b"/"))
    assert export(samples, tmp_path / "out") == len(FILES)
    assert tree(tmp_path / "out") == FILES


def test_one_file_is_one_sample(store, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"abc")
    assert values(put(store, tmp_path / "x.bin")) == [[b"x.bin", b"abc"]]


def test_folders_of_images_are_classes(store, tmp_path):
    files = {f"{kind}/{n}.png".encode(): bytes([n]) * 9 for kind in ("cat", "dog") for n in range(3)}
    samples = put(store, write(tmp_path / "in", files))
    assert (samples.manifest.head.kind, samples.manifest.head.classes) == ("images", ("cat", "dog"))
    assert [int(label) for _, _, label in values(samples)] == [0, 0, 0, 1, 1, 1]
    export(samples, tmp_path / "out")
    assert tree(tmp_path / "out") == files


def idx_files(rng: np.random.Generator) -> dict[bytes, bytes]:
    """Images and labels of two parts, 5 and 30 of them."""
    files = {}
    for part, count in (("t10k", 5), ("train", 30)):
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        for what, array in (("images", images), ("labels", labels)):
            data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
            files[f"{part}-{what}-idx{array.ndim}-ubyte".encode()] = data
    return files


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_become_images_with_labels(store, tmp_path, packed):
    files = idx_files(np.random.default_rng(0))
    given = {name + b".gz": gzip.compress(data) for name, data in files.items()} if packed else files
    samples = put(store, write(tmp_path / "in", given))
    assert [field.name for field in samples.manifest.head.fields] == ["image", "label"]
    found = values(samples)
    for part, rows in ((b"t10k", found[:5]), (b"train", found[5:])):
        assert b"".join(image.tobytes() for image, _ in rows) == files[part + b"-images-idx3-ubyte"][16:]
        assert bytes(int(label) for _, label in rows) == files[part + b"-labels-idx1-ubyte"][8:]
    export(samples, tmp_path / "out")
    assert tree(tmp_path / "out") == files


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">i2", "|u1", "<i8", "|b1", "<f2"])
def test_numpy_files_come_back_byte_for_byte(store, tmp_path, dtype):
    (tmp_path / "in").mkdir()
    x = np.random.default_rng(1).integers(0, 2, (700, 3, 5)).astype(dtype)
    y = np.arange(700, dtype="<i4")
    np.save(tmp_path / "in" / "x.npy", x)
    np.save(tmp_path / "in" / "y.npy", y)
    samples = put(store, tmp_path / "in")
    found = values(samples)
    np.testing.assert_array_equal(np.stack([row[0] for row in found]), x)
    np.testing.assert_array_equal([row[1] for row in found], y)
    export(samples, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "in")


def test_rows_larger_than_a_chunk_are_read_piece_by_piece(store, tmp_path, monkeypatch):
    monkeypatch.setattr("pydec.store.inputs.columns._LARGE_ROW_BYTES", 10_000)
    x = np.random.default_rng(2).standard_normal((5, 3000)).astype(">f8")
    np.save(tmp_path / "x.npy", x)
    samples = put(store, tmp_path / "x.npy")
    np.testing.assert_array_equal(np.stack([row[0] for row in values(samples)]), x)
    export(samples, tmp_path / "out")
    assert (tmp_path / "out" / "x.npy").read_bytes() == (tmp_path / "x.npy").read_bytes()


def test_archives_of_arrays_become_fields(store, tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=np.arange(20.0), label=np.arange(20) % 3)
    samples = put(store, tmp_path / "d.npz")
    assert [(f.name, f.dtype) for f in samples.manifest.head.fields] == [("label", "int64"), ("x", "float64")]
    assert [float(x) for _, x in values(samples)] == list(range(20))


@pytest.mark.parametrize("text", [b"a\nbb\n\nccc", b"one line", b"\n", "größe\n".encode() * 5000])
def test_lines_of_text_come_back_byte_for_byte(store, tmp_path, text):
    (tmp_path / "t.txt").write_bytes(text)
    samples = put(store, tmp_path / "t.txt", form="text")
    assert [line for (line,) in values(samples)] == text.decode().splitlines(keepends=True)
    export(samples, tmp_path / "out")
    assert (tmp_path / "out" / "t.txt").read_bytes() == text


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_tables_become_samples_and_tables_again(store, tmp_path, suffix):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    rows = 3000
    table = arrow.table(
        {
            "x": np.arange(rows, dtype=np.float32),
            "flag": np.arange(rows) % 2 == 0,
            "text": [f"line {n}" for n in range(rows)],
            "raw": [bytes([n % 256]) * (n % 7) for n in range(rows)],
            "tokens": [list(range(n % 5)) for n in range(rows)],
            "pair": arrow.array([[n, n + 1] for n in range(rows)], arrow.list_(arrow.int32(), 2)),
            "image": [{"bytes": b"png", "path": "p"} for _ in range(rows)],
        }
    )
    path = tmp_path / f"t.{suffix}"
    (pyarrow.parquet.write_table if suffix == "parquet" else pyarrow.feather.write_feather)(table, path)
    samples = put(store, path)
    x, flag, text, raw, tokens, pair, image, where = values(samples)[2999]
    assert (float(x), bool(flag), text, raw, tokens.tolist()) == (
        2999,
        False,
        "line 2999",
        b"\xb7" * 3,
        [0, 1, 2, 3],
    )
    assert (pair.tolist(), image, where) == ([2999, 3000], b"png", "p")
    export(samples, tmp_path / "out")
    again = pyarrow.parquet.read_table(tmp_path / "out" / "d.parquet")
    for name in ("x", "flag", "text", "raw", "tokens", "pair"):
        assert again[name].to_pylist() == table[name].to_pylist()


def test_what_a_function_returns_can_be_added(store, tmp_path, monkeypatch):
    (tmp_path / "mine_to_add.py").write_text(
        "import torch\n"
        "def pairs():\n"
        "    return torch.utils.data.TensorDataset(torch.arange(12.).reshape(4, 3), torch.arange(4))\n"
        "def named():\n"
        "    return iter([{'text': 'a', 'n': 1}, {'text': 'bcd', 'n': 2}])\n"
        "def ragged():\n"
        "    return [(torch.arange(n),) for n in range(1, 5)]\n"
        "def nothing():\n"
        "    return []\n"
        "def odd():\n"
        "    return [object()]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = values(put(store, "mine_to_add:pairs", "pairs"))
    assert [(x.tolist(), int(y)) for x, y in found] == [([3 * n, 3 * n + 1, 3 * n + 2], n) for n in range(4)]
    assert [(int(n), text) for n, text in values(put(store, "mine_to_add:named", "named"))] == [
        (1, "a"),
        (2, "bcd"),
    ]
    with pytest.raises(StoreError, match=r"shape \(2,\), the first has \(1,\); use --ragged"):
        put(store, "mine_to_add:ragged")
    ragged = add(store, open_input("mine_to_add:ragged", ragged=True), "ragged")
    assert [x.tolist() for (x,) in values(Samples(ragged, store.objects))] == [
        list(range(n)) for n in range(1, 5)
    ]
    for name, words in (("nothing", "no sample"), ("odd", "a data set holds")):
        with pytest.raises(StoreError, match=words):
            put(store, f"mine_to_add:{name}")
    with pytest.raises(ConfigError, match="has no 'none'"):
        put(store, "mine_to_add:none")
    with pytest.raises(ConfigError, match="has no files to give back"):
        export(Samples(ragged, store.objects), tmp_path / "out")


def test_missing_values_in_a_table_are_refused(store, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    for name, column, words in (
        ("a", [1, None], "missing values"),
        ("b", [[1], [None]], "missing values"),
        ("c", arrow.array([1, 2], arrow.timestamp("s")), "holds timestamp"),
    ):
        pyarrow.parquet.write_table(arrow.table({"x": column}), tmp_path / f"{name}.parquet")
        with pytest.raises(StoreError, match=words):
            put(store, tmp_path / f"{name}.parquet")


def test_without_pyarrow_tables_ask_for_it(store, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(SetupError, match=r"pip install 'pydec-train\[data\]'"):
        put(store, tmp_path / "x.parquet")
