"""A data set of the store as torch's data sets are: by number, or as a stream, for a plain DataLoader.

    data = pydec.store.Dataset("photos", transform=decode_and_crop)
    sampler = pydec.store.Sampler(data, seed=0, rank=peer.rank, size=peer.size)
    loader = torch.utils.data.DataLoader(data, batch_size=32, sampler=sampler, num_workers=2)

This is the only module of the store that imports torch.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from pydec.crypto.keyring import Keyring
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError
from pydec.store.fetching import Fetcher, served
from pydec.store.keys import keyring
from pydec.store.manifest import Kind, Manifest
from pydec.store.objects import Reader
from pydec.store.order import WINDOW_BYTES, Interval, Numbers, Order, blocks, cut, left_over, share
from pydec.store.reading import CACHE_BYTES, Samples, decode
from pydec.store.store import Store

Transform = Callable[[tuple[Any, ...]], Any]


class Dataset(torch_data.Dataset[Any]):
    """Samples by number, each a tuple of its fields; every chunk is verified before it is used.

    Bytes and text come as they are, arrays as tensors of their type, single numbers as tensors of shape ().
    May be pickled, and used in workers of a DataLoader: each reads the store itself, and asks the process
    that made this for what only peers have (``fetching.py``).

    Args:
        name: of the data set, or 8 or more digits of its root.
        store: directory of the store; None is the user's.
        fields: names of the fields that are wanted, in this order; None: all of them.
        part: take only the samples of source files whose name begins so, such as "train" of MNIST's.
        transform: makes of the tuple what is wanted.
        cache_bytes: most bytes of chunks that are kept in memory; the workers of a DataLoader share them out.
        reader: where objects come from, from any thread; None: the store. It stays in this process.
        key: identity that may read a private data set, or its keys. They are not pickled either.

    Raises:
        ConfigError: no such store, data set, field or part; or it is private, and there is no key.
        AccessDenied: it is private, and was not granted to this key.
        StoreError: the manifest is damaged.
    """

    def __init__(
        self,
        name: str,
        *,
        store: str | Path | None = None,
        fields: Sequence[str] | None = None,
        part: str = "",
        transform: Transform | None = None,
        cache_bytes: int = CACHE_BYTES,
        reader: Reader | None = None,
        key: SigningKey | Keyring | None = None,
    ) -> None:
        self._directory = None if store is None else Path(store)
        self._transform, self._cache_bytes, self._reader = transform, cache_bytes, reader
        self._home, self._fetch = os.getpid(), None if reader is None else served(reader)
        with Store(self._directory) as opened:
            self.manifest: Manifest = opened.find(name)
            self._keys = key if isinstance(key, Keyring) else keyring(opened, self.manifest, key)
        head = self.manifest.head
        known = [field.name for field in head.fields]
        for wanted in fields or ():
            if wanted not in known:
                raise ConfigError(f"data set {name} has no field {wanted!r}; it has {', '.join(known)}")
        self._columns = [known.index(wanted) for wanted in (known if fields is None else fields)]
        self._intervals = _part(self.manifest, part)
        self._ends = [*accumulate(stop - start for start, stop in self._intervals)]
        self._samples: tuple[int, Samples] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> Any:
        """One sample.

        Raises:
            IndexError: there is no such sample.
            ChunkError: a chunk of it is missing or damaged.
        """
        number = int(number)
        if number < 0:
            number += len(self)
        values = self._values(number)
        return values if self._transform is None else self._transform(values)

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """Samples of a batch, read in the order of their places."""
        found: list[Any] = [None] * len(numbers)
        for at in sorted(range(len(numbers)), key=numbers.__getitem__):
            found[at] = self[numbers[at]]
        return found

    def batch(self, numbers: Tensor | Sequence[int]) -> Any:
        """Samples stacked into tensors, as torch's ``default_collate`` does.

        Args:
            numbers: of the samples, int64 of shape (n,).
        """
        if self._transform is not None or not self._all_fixed():
            return torch_data.default_collate(self.__getitems__([int(n) for n in numbers]))
        fields, wanted = self.manifest.head.fields, self._numbers(np.asarray(numbers, np.int64))
        rows, ends = self._open().rows(wanted), [0, *accumulate(field.n_bytes for field in fields)]
        found = []
        for column in self._columns:
            part = np.ascontiguousarray(rows[:, ends[column] : ends[column + 1]])
            array = part.view(np.dtype(fields[column].dtype).newbyteorder("<"))
            found.append(_tensor(array.reshape(len(wanted), *fields[column].shape)))
        return tuple(found)

    def order(
        self, seed: int, epoch: int, *, shuffle: bool = True, window_bytes: int = WINDOW_BYTES
    ) -> Order:
        """The sequence of an epoch, in the numbers of this data set; see ``order.Order``."""
        shards, first = self.manifest.shards, [0]
        for shard in self.manifest.shards:
            first.append(first[-1] + shard.samples)
        counts, sizes = [], []
        for shard, start, stop in zip(shards, first[:-1], first[1:], strict=True):
            here = sum(
                b - a for low, high in self._intervals if (a := max(low, start)) < (b := min(high, stop))
            )
            if here:
                counts.append(here)
                sizes.append(shard.n_bytes)
        return Order(counts, sizes, seed, epoch, shuffle=shuffle, window_bytes=window_bytes)

    def stream(self, batch_size: int, **options: Any) -> Stream:
        """Batches one after the other; see ``Stream``."""
        return Stream(self, batch_size, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None, "_reader": None, "_keys": None}

    def _all_fixed(self) -> bool:
        return all(field.kind is Kind.ARRAY and field.n_bytes for field in self.manifest.head.fields)

    def _values(self, number: int) -> tuple[Any, ...]:
        raw = self._open().raw(self._number(number))
        fields = self.manifest.head.fields
        found = decode([fields[c] for c in self._columns], [raw[c] for c in self._columns])
        return tuple(_tensor(np.array(v)) if isinstance(v, (np.ndarray, np.generic)) else v for v in found)

    def _numbers(self, numbers: Numbers) -> Numbers:
        """The same of many samples."""
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            low, high = int(numbers.min()), int(numbers.max())
            raise IndexError(
                f"samples {low} to {high} are outside the {len(self)} samples of {self.manifest.head.name}"
            )
        at = np.searchsorted(self._ends, numbers, "right")
        shift = [
            start - before for (start, _), before in zip(self._intervals, [0, *self._ends], strict=False)
        ]
        found: Numbers = numbers + np.array(shift, np.int64)[at]
        return found

    def _number(self, number: int) -> int:
        """The sample's number among all of the data set's."""
        if not 0 <= number < len(self):
            raise IndexError(
                f"sample {number} is outside the {len(self)} samples of {self.manifest.head.name}"
            )
        at = bisect_right(self._ends, number)
        return self._intervals[at][0] + number - (self._ends[at - 1] if at else 0)

    def _open(self) -> Samples:
        """The samples, opened in this process."""
        if self._samples is None or self._samples[0] != os.getpid():
            reader, limit = self._reader, self._cache_bytes
            if reader is None or os.getpid() != self._home:
                store = Store(self._directory)
                reader = store.objects if self._fetch is None else Fetcher(store, self._fetch)
            worker = torch_data.get_worker_info()
            if worker is not None:
                limit //= worker.num_workers
            self._samples = os.getpid(), Samples(self.manifest, reader, limit, self._keys)
        return self._samples[1]


class Sampler(torch_data.Sampler[int]):
    """The numbers of a rank's samples in the order of an epoch; for the ``sampler`` of a DataLoader.

    Args:
        data: the data set.
        seed: with the epoch decides the order.
        rank, size: whose part of the epoch, and of how many; parts differ in length by at most 1.
        shuffle: False: in the order of the numbers.
        window_bytes: about how many bytes are permuted together, see ``order.py``.

    Attributes:
        epoch: of the next iteration; ``set_epoch`` and the end of one change it.
        taken: samples of the epoch that this rank leaves out, as it has had them.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        seed: int = 0,
        rank: int = 0,
        size: int = 1,
        shuffle: bool = True,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        if not 0 <= rank < size:
            raise ConfigError(f"rank must be in [0, {size}), got {rank}")
        self._data, self._seed, self._rank, self._size = data, seed, rank, size
        self._shuffle, self._window_bytes = shuffle, window_bytes
        self.epoch, self.taken = 0, 0
        self._left: list[Interval] = [(0, len(data))]

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self._mine()) - self.taken

    def __iter__(self) -> Iterator[int]:
        for block in self.blocks(4096):
            yield from block.tolist()

    def blocks(self, size: int, *, first: int = 0, step: int = 1) -> Iterator[Numbers]:
        """The same in blocks of ``size`` samples: every ``step``-th of them, from block ``first`` on."""
        order = self._data.order(
            self._seed, self.epoch, shuffle=self._shuffle, window_bytes=self._window_bytes
        )
        mine = cut(self._mine(), self.taken, len(self._data))
        if step == 1:
            yield from blocks(order, mine, first * size, size)
            return
        total = sum(stop - start for start, stop in mine)
        for at in range(first * size, total, step * size):
            yield from blocks(order, cut(mine, at, at + size), 0, size)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, of which nobody has had anything."""
        self.epoch, self.taken, self._left = epoch, 0, [(0, len(self._data))]

    def state_dict(self, taken: int) -> dict[str, Any]:
        """Where this rank is, for ``load_state_dict``.

        Args:
            taken: samples that it has had of this sampler since it began or was loaded: a DataLoader
                asks for more than the loop has seen, so the loop has to count.
        """
        return {
            "root": self._data.manifest.root.hex(),
            "samples": len(self._data),
            "seed": self._seed,
            "epoch": self.epoch,
            "left": [list(interval) for interval in self._left],
            "size": self._size,
            "taken": self.taken + taken,
        }

    def load_state_dict(self, state: dict[str, Any], taken: Sequence[int] | None = None) -> None:
        """Go on from a state, also with another number of ranks.

        Args:
            state: of this rank, or of any rank if ``taken`` is given.
            taken: of every rank that there was, from its state; needed where their number changes.

        Raises:
            ConfigError: a state of another data set, or of another number of ranks.
        """
        mine = self._data.manifest.root.hex(), len(self._data)
        if (state["root"], state["samples"]) != mine:
            raise ConfigError(
                f"the position is of data set {state['root'][:16]} with {state['samples']} samples, this is "
                f"{mine[0][:16]} with {mine[1]}"
            )
        left = [(start, stop) for start, stop in state["left"]]
        if taken is None and state["size"] != self._size:
            raise ConfigError(
                f"the position is of one of {state['size']} ranks, now there are {self._size}: give what "
                "each of "
                "them had taken"
            )
        self._seed, self.epoch = state["seed"], state["epoch"]
        if taken is None:
            self._left, self.taken = left, state["taken"]
        else:
            self._left, self.taken = left_over(left, state["size"], taken), 0

    def _mine(self) -> list[Interval]:
        return share(self._left, self._rank, self._size)


class Stream(torch_data.IterableDataset[Any]):
    """A rank's batches of one epoch after the other, for a DataLoader with ``batch_size=None``, or by itself.

    Workers of a DataLoader take turns, so that the batches come in the same order with any number of them;
    without workers, threads read ahead.

    Args:
        data: the data set.
        batch_size: samples of a batch.
        drop_last: leave out what is less than a batch at an epoch's end.
        ahead: batches that are read ahead by threads.
        threads: how many.
        sampler: see ``Sampler``.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        *,
        drop_last: bool = False,
        ahead: int = 4,
        threads: int = 2,
        **sampler: Any,
    ) -> None:
        if batch_size < 1 or ahead < 1 or threads < 1:
            raise ConfigError(
                f"batch_size, ahead and threads must be at least 1, got {batch_size}, {ahead} and {threads}"
            )
        self._data, self._size, self._drop = data, batch_size, drop_last
        self._ahead, self._threads = ahead, threads
        self.sampler = Sampler(data, **sampler)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self._size)
        return whole + bool(rest and not self._drop)

    def __iter__(self) -> Iterator[Any]:
        worker = torch_data.get_worker_info()
        if worker is not None:
            for block in self.sampler.blocks(self._size, first=worker.id, step=worker.num_workers):
                if len(block) == self._size or not self._drop:
                    yield self._data.batch(torch.from_numpy(block))
            return
        waiting: deque[Future[Any]] = deque()
        begun = False
        with ThreadPoolExecutor(self._threads, "pydec-read") as pool:
            try:
                for block in self.sampler.blocks(self._size):
                    if len(block) < self._size and self._drop:
                        break
                    waiting.append(pool.submit(self._data.batch, torch.from_numpy(block)))
                    if not begun or len(waiting) > self._ahead:  # nothing competes with the first
                        begun = True
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def set_epoch(self, epoch: int) -> None:
        """See ``Sampler.set_epoch``."""
        self.sampler.set_epoch(epoch)

    def state_dict(self, batches: int) -> dict[str, Any]:
        """See ``Sampler.state_dict``; ``batches`` that the loop has had since it began or was loaded."""
        left = len(self.sampler)
        return self.sampler.state_dict(min(batches * self._size, left))

    def load_state_dict(self, state: dict[str, Any], taken: Sequence[int] | None = None) -> None:
        """See ``Sampler.load_state_dict``."""
        self.sampler.load_state_dict(state, taken)


def _part(manifest: Manifest, part: str) -> list[Interval]:
    """The samples of some source files, as intervals."""
    head = manifest.head
    if not part:
        return [(0, head.samples)]
    wanted = part.encode()
    found = sorted({(s.first, s.first + s.samples) for s in head.sources if s.path.startswith(wanted)})
    found = [(start, stop) for start, stop in found if start < stop]
    if not found:
        names = ", ".join(os.fsdecode(source.path) for source in head.sources[:8]) or "none"
        raise ConfigError(
            f"data set {head.name} has no source file that begins with {part!r}; it has {names}"
        )
    return found


def _tensor(array: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    return torch.from_numpy(array)
