"""The store beside its hash, the disk and its peers: reads, adding, repair, and what loaders give."""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch.utils.data import DataLoader

from pydec.disk import DISK, page_aligned
from pydec.store import Dataset
from pydec.store.adding import add
from pydec.store.erasure import Code
from pydec.store.inputs import open_input
from pydec.store.inputs.base import Run
from pydec.store.manifest import Field, Kind, Policy, Source
from pydec.store.store import Store
from pydec.store.upkeep import THREADS, objects_of, verify

from .harness import Options, Row, interleaved
from .libraries import library
from .netlab.lab import Lab, Link, missing

CHUNK = 1 << 20
SIDE, BATCH = 64, 64  # of an image, and how many a batch has


def rows(options: Options) -> Iterator[Row]:
    """Bytes beside BLAKE3, the disk and a link; then loaders beside mosaicml-streaming and webdataset."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        if options.only in "bytes":
            yield from _bytes(base / "bytes", options)
        if options.only in "large":
            yield from _large(base / "large", options)
        if options.only in "erasure":
            yield from _erasure(options)
        if options.only in "repair":
            yield from _repair(base / "repair", options)
        if options.only in "loader":
            yield from _loaders(base / "loaders", options)


def _bytes(base: Path, options: Options) -> Iterator[Row]:
    """All on data in the page cache, so that the disk is left out of reads; adding ends on the disk."""
    base.mkdir()
    mib, rounds = (16, 2) if options.quick else (512, options.rounds or 7)
    data = np.random.default_rng(0).integers(0, 256, mib << 20, np.uint8)
    path = base / "data.bin"
    path.write_bytes(data.data)
    view = memoryview(data)
    pieces = [view[at : at + CHUNK] for at in range(0, len(view), CHUNK)]
    with Store(base / "store", create=True) as store:
        manifest = add(store, open_input(str(path)), "data")
        names = list(objects_of(store, manifest))
        numbers = iter(range(1 << 30))

        def hashed() -> None:
            for piece in pieces:
                blake3(piece).digest()

        def read() -> None:
            for name in names:
                store.objects.get(name)

        def verified() -> None:
            if not verify(store, manifest).whole:
                raise AssertionError("what was added is damaged")

        def added() -> None:
            with Store(base / f"store-{next(numbers)}", create=True) as fresh:
                if add(fresh, open_input(str(path)), "data").root != manifest.root:
                    raise AssertionError("the same data has another root")

        def written() -> None:
            """As many files of as many bytes, each synced: what the disk does without us."""
            folder = base / f"files-{next(numbers)}"
            folder.mkdir()
            for number, piece in enumerate(pieces):
                with open(folder / str(number), "wb", buffering=0) as file:
                    file.write(piece)
                    _sync(file.fileno())

        def streamed() -> None:
            """One file past the page cache: what the disk does at best."""
            target = base / f"file-{next(numbers)}"
            file = DISK.write_new(target, aligned)
            DISK.sync(file)
            DISK.close(file)
            target.unlink()

        found = interleaved({"hash": hashed, "read": read, "verify": verified}, rounds, warmup=1)
        rate = {name: 1.048576e-3 * mib / timing.median_s for name, timing in found.items()}
        params: dict[str, float] = {"mib": mib, "chunk_mib": 1, "rounds": rounds}
        for name, words in (("read", "verified read"), ("verify", "verify, 4 threads")):
            fraction = rate[name] / rate["hash"]
            yield Row("store", words, params, rate[name], "GB/s", "BLAKE3, 1 thread", rate["hash"], fraction)
        rounds = min(rounds, 3)
        aligned = page_aligned(len(data))
        aligned[:] = view
        timed = {"hash": hashed, "add": added, "write": written, "stream": streamed}
        found = interleaved(timed, rounds, warmup=1)
        rate = {name: 1.048576e-3 * mib / timing.median_s for name, timing in found.items()}
        params = {**params, "rounds": rounds}
        for peer, words in (
            ("hash", "BLAKE3, 1 thread"),
            ("write", "as many files written and synced"),
            ("stream", "one file, past the page cache"),
        ):
            yield Row(
                "store", "add", params, rate["add"], "GB/s", words, rate[peer], rate["add"] / rate[peer]
            )
        on_disk = sum(p.stat().st_blocks * 512 for p in (base / "store").rglob("*") if p.is_file())
        overhead = 100 * (on_disk / len(data) - 1)
        yield Row(
            "store",
            "overhead on disk",
            {"mib": mib},
            overhead,
            "%",
            "the limit",
            2.0,
            2.0 / max(overhead, 1e-3),
        )


class _Counted:
    """Rows of 1 MiB, all different, which nobody has to keep."""

    kind, classes = "numpy", ()
    fields = (Field("x", Kind.ARRAY, "uint8", (CHUNK,)),)

    def __init__(self, mib: int) -> None:
        self.n_bytes, self._mib = mib << 20, mib
        self.fingerprint = blake3(b"%d" % mib).digest()

    def blocks(self, start: int) -> Iterator[Run]:
        row = np.random.default_rng(0).integers(0, 256, (1, CHUNK), np.uint8)
        for number in range(start, self._mib):
            row[0, :8] = np.array([number], "<i8").view(np.uint8)
            yield Run.rows(row)

    def sources(self) -> tuple[Source, ...]:
        return ()


def _large(base: Path, options: Options) -> Iterator[Row]:
    """Verify what is not in the page cache, beside reading the same files."""
    mib, rounds = (64, 1) if options.quick else (8192, min(options.rounds or 3, 3))
    with Store(base, create=True) as store:
        began_s = time.perf_counter()
        manifest = add(store, _Counted(mib), "data")
        added = (mib << 20) / (time.perf_counter() - began_s) / 1e9
        paths = [store.objects.path(name) for name in objects_of(store, manifest)]

        def verified() -> None:
            _forget(paths)
            if not verify(store, manifest).whole:
                raise AssertionError("what was added is damaged")

        def read() -> None:
            _forget(paths)
            with ThreadPoolExecutor(THREADS) as pool:
                if sum(pool.map(lambda path: len(path.read_bytes()), paths)) < mib << 20:
                    raise AssertionError("files are shorter than what was added")

        found = interleaved({"verify": verified, "read": read}, rounds, warmup=0)
    rate = {name: 1.048576e-3 * mib / timing.median_s for name, timing in found.items()}
    params = {"mib": mib, "threads": THREADS, "rounds": rounds, "add_gbytes_per_s": round(added, 3)}
    yield Row(
        "store", "verify, nothing cached", params, rate["verify"], "GB/s", "reading the same files",
        rate["read"], rate["verify"] / rate["read"],
    )  # fmt: skip


def _forget(paths: list[Path]) -> None:
    """Have the page cache drop these files."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _erasure(options: Options) -> Iterator[Row]:
    """Code chunks of 1 MiB as 4+2, and decode them without two data fragments, beside BLAKE3."""
    rounds, count = (2, 4) if options.quick else (options.rounds or 7, 64)
    chunks = [np.random.default_rng(n).bytes(CHUNK) for n in range(count)]
    code = Code(4, 2)
    coded = [dict(enumerate(code.encode(chunk))) for chunk in chunks]
    left = [{n: fragments[n] for n in (0, 3, 4, 5)} for fragments in coded]

    def decode() -> None:
        for chunk, fragments in zip(chunks, left, strict=True):
            if code.decode(fragments, CHUNK) != chunk:
                raise AssertionError("fragments give another chunk")

    def encode() -> None:
        for chunk in chunks:
            code.encode(chunk)

    def hashed() -> None:
        for chunk in chunks:
            blake3(chunk).digest()

    found = interleaved({"encode": encode, "decode": decode, "hash": hashed}, rounds, warmup=1)
    rate = {name: 1e-9 * CHUNK * count / timing.median_s for name, timing in found.items()}
    engine = "NumPy" if isinstance(library("pyeclib"), str) else "ISA-L"
    for name in ("encode", "decode"):
        yield Row(
            "store", f"{name} 4+2", {"chunk_mib": 1, "rounds": rounds, "engine": engine}, rate[name], "GB/s",
            "BLAKE3, 1 thread", rate["hash"], rate[name] / rate["hash"],
        )  # fmt: skip


def _repair(base: Path, options: Options) -> Iterator[Row]:
    """A host gets the copy that it owes from another one, over a link of 1 Gbit/s."""
    mib, rounds = (16, 1) if options.quick else (512, min(options.rounds or 3, 3))
    params: dict[str, Any] = {"mib": mib, "link": "1gbit", "rounds": rounds}
    name, link = "repair from another host", 0.125
    if why := missing():
        yield Row("store", name, params, 0.0, "GB/s", f"not measured: {why}")
        return
    with Store(base / "source", create=True) as store:
        add(store, _Counted(mib), "data", policy=Policy(replicas=2))
    found = []
    with Lab([Link("1gbit")] * 2) as lab:
        for _ in range(rounds):
            shutil.rmtree(base / "copy", ignore_errors=True)
            program = str(Path(__file__).with_name("store_repair.py"))
            said = json.loads(lab.run([sys.executable, program, str(base)], timeout_s=300.0).splitlines()[-1])
            found.append(1e-9 * said["bytes"] / said["seconds"])
    rate = statistics.median(found)
    yield Row("store", name, params, rate, "GB/s", "the link", link, rate / link)


def _loaders(base: Path, options: Options) -> Iterator[Row]:
    """The same images, shuffled, through a DataLoader without workers and with two."""
    base.mkdir()
    count, rounds = (512, 1) if options.quick else (16_384, options.rounds or 5)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 3, SIDE, SIDE), np.uint8)
    labels = rng.integers(0, 1000, count)
    makers: dict[str, Callable[[int], Any]] = {"pydec": _ours(base, images, labels)}
    for name, module, make in (
        ("mosaicml-streaming", "streaming", _mosaic),
        ("webdataset", "webdataset", _webdataset),
    ):
        if isinstance(found := library(module), str):
            print(f"{name} left out: {found}", file=sys.stderr)
        else:
            makers[name] = make(base, images, labels)
    total = int(labels.sum())
    for workers in (0, 2):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
        for number in range(rounds + 1):
            for name in list(makers) if number % 2 else reversed(list(makers)):
                first_s, whole_s, seen, summed = _drain(makers[name], workers)
                if (seen, summed) != (count, total):
                    raise AssertionError(f"{name} gave {seen} samples of {count}, labels {summed} of {total}")
                if number:  # the first is warm-up
                    times[name].append((first_s, whole_s))
        median = {name: np.median(np.array(found), axis=0) for name, found in times.items()}
        params = {
            "samples": count,
            "bytes": 3 * SIDE * SIDE,
            "batch": BATCH,
            "workers": workers,
            "rounds": rounds,
        }
        peers: list[str | None] = [*list(makers)[1:]] or [None]
        for what, unit in (("samples", "samples/s"), ("first batch", "ms")):
            value = {n: count / m[1] if what == "samples" else 1e3 * m[0] for n, m in median.items()}
            for peer in peers:
                theirs = None if peer is None else float(value[peer])
                mine = float(value["pydec"])
                ratio = None if theirs is None else (mine / theirs if what == "samples" else theirs / mine)
                name = f"{what}, {workers} workers"
                yield Row("store", name, params, mine, unit, peer, theirs, ratio)


def _drain(make: Callable[[int], Any], workers: int) -> tuple[float, float, int, int]:
    """Seconds from opening to the first batch and to the last, samples, and the sum of their labels."""
    began_s, first_s, seen, summed = time.perf_counter(), 0.0, 0, 0
    for image, label in make(workers):
        first_s = first_s or time.perf_counter() - began_s
        seen += len(image)
        summed += int(label.sum())
    return first_s, time.perf_counter() - began_s, seen, summed


def _ours(base: Path, images: np.ndarray, labels: np.ndarray) -> Callable[[int], Any]:
    (base / "in").mkdir()
    np.save(base / "in" / "image.npy", images)
    np.save(base / "in" / "label.npy", labels)
    with Store(base / "store", create=True) as store:
        add(store, open_input(str(base / "in")), "images")

    def loader(workers: int) -> Any:
        stream = Dataset("images", store=base / "store", cache_bytes=512 << 20).stream(BATCH, seed=1)
        return DataLoader(stream, batch_size=None, num_workers=workers)

    return loader


def _mosaic(base: Path, images: np.ndarray, labels: np.ndarray) -> Callable[[int], Any]:
    streaming: Any = library("streaming")
    out = str(base / "mds")
    columns = {"image": f"ndarray:uint8:3,{SIDE},{SIDE}", "label": "int"}
    with streaming.MDSWriter(out=out, columns=columns, size_limit=1 << 26) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.write({"image": image, "label": int(label)})

    def loader(workers: int) -> Any:
        data = streaming.StreamingDataset(
            local=out, batch_size=BATCH, shuffle=True, shuffle_seed=1, num_canonical_nodes=1
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # its samples are not
            for batch in DataLoader(data, batch_size=BATCH, num_workers=workers):
                yield batch["image"], batch["label"]

    return loader


def _webdataset(base: Path, images: np.ndarray, labels: np.ndarray) -> Callable[[int], Any]:
    webdataset: Any = library("webdataset")
    (base / "wds").mkdir()
    per_shard = max(1, len(images) // 4)
    for first in range(0, len(images), per_shard):
        with tarfile.open(base / "wds" / f"{first // per_shard:05}.tar", "w") as archive:
            for number in range(first, min(first + per_shard, len(images))):
                for suffix, content in (("raw", images[number].tobytes()), ("cls", b"%d" % labels[number])):
                    entry = tarfile.TarInfo(f"{number:08}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    shards = sorted(str(path) for path in (base / "wds").iterdir())

    def sample(found: dict[str, bytes]) -> tuple[torch.Tensor, int]:
        image = np.frombuffer(found["raw"], np.uint8).reshape(3, SIDE, SIDE).copy()
        return torch.from_numpy(image), int(found["cls"])

    def loader(workers: int) -> Any:
        data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=1).shuffle(1000).map(sample)
        return DataLoader(data, batch_size=BATCH, num_workers=workers)

    return loader


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)
