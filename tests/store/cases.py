"""What the tests of the store share: folders, and how their samples are read."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from pydec.store.adding import add
from pydec.store.inputs import open_input
from pydec.store.reading import Samples, decode
from pydec.store.store import Store
from pydec.store.upkeep import verify

CHUNK = 4096


def put(store: Store, path: object, name: str = "d", form: str = "", **options: object) -> Samples:
    manifest = add(store, open_input(str(path), form), name, chunk_bytes=CHUNK, **options)
    assert verify(store, manifest).whole
    assert store.find(name) == manifest
    return Samples(manifest, store.objects)


def values(samples: Samples) -> list[list[object]]:
    return [decode(samples.manifest.head.fields, samples.raw(number)) for number in range(len(samples))]


def tree(folder: Path) -> dict[bytes, bytes]:
    base = os.fsencode(folder)
    return {
        os.path.relpath(os.path.join(at, name), base): Path(os.fsdecode(os.path.join(at, name))).read_bytes()
        for at, _, names in os.walk(base)
        for name in names
    }


def write(folder: Path, files: dict[bytes, bytes]) -> Path:
    for name, content in files.items():
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    return folder


FILES = {
    b"a.txt": b"hello",
    b"empty": b"",
    b"one": b"1",
    b"odd-\xff\xfe name\n": b"odd",
    b"deep/er/" + "größe".encode(): b"x" * 100,
    b"large": random.Random(0).randbytes(10 * CHUNK + 17),
    b"twin": random.Random(0).randbytes(10 * CHUNK + 17),
    b"exact": random.Random(1).randbytes(CHUNK),
}


def stop(most: int) -> Callable[[int], None]:
    """Interrupts an add once so many bytes are added."""

    def progress(n_bytes: int) -> None:
        if n_bytes > most:
            raise KeyboardInterrupt

    return progress
