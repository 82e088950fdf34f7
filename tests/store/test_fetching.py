"""Workers of a DataLoader read the store, and the one process that has peers gets the rest for all."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pydec.errors import ChunkError, StoreError
from pydec.store import Dataset, fetching
from pydec.store.fetching import Fetcher, Server, served
from pydec.store.objects import digest_of
from pydec.store.reading import Samples
from pydec.store.store import Store
from pydec.store.upkeep import copy, objects_of
from tests.store.cases import put

ROWS = 600


class Peers:
    """What peers have, as the rank's process gets it: kept in the store, counted by process and thread."""

    def __init__(self, store: Store, elsewhere: Store) -> None:
        self._store, self._elsewhere = store, elsewhere
        self.fetched: list[tuple[int, bytes]] = []

    def get(self, digest: bytes) -> bytes:
        try:
            return self._store.objects.get(digest)
        except ChunkError:
            data = self._elsewhere.objects.get(digest)
        self.fetched.append((os.getpid(), digest))
        self._store.objects.adopt(digest, data)
        return data

    def peek(self, digest: bytes, offset: int, n_bytes: int) -> bytes | None:
        return self._store.objects.peek(digest, offset, n_bytes)


@pytest.fixture
def peers(store, tmp_path):
    """A store that has lost its chunks, and a reader that gets them from another one."""
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "label.npy", np.arange(ROWS))
    np.save(tmp_path / "in" / "x.npy", np.zeros((ROWS, 20), np.float32))
    manifest = put(store, tmp_path / "in").manifest
    with Store(tmp_path / "elsewhere", create=True) as elsewhere:
        assert copy(elsewhere, manifest, [store.objects]).whole
        indices = {shard.index for shard in manifest.shards}
        for name in list(objects_of(store, manifest)):
            if name not in indices:
                store.objects.remove(name)
        yield Peers(store, elsewhere)


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning"
)  # of fork, as torch does by default
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_get_what_only_peers_have_through_the_process_that_has_them(store, peers, context):
    data = Dataset("d", store=store.directory, fields=["label"], reader=peers)
    loader = DataLoader(data, batch_size=50, num_workers=2, multiprocessing_context=context)
    found = [int(label) for (batch,) in loader for label in batch]
    assert found == list(range(ROWS))
    assert {pid for pid, _ in peers.fetched} == {os.getpid()}
    assert len(peers.fetched) > 5
    missing = [name for name in objects_of(store, data.manifest) if not store.objects.has(name)]
    assert not missing


def test_what_is_here_is_not_asked_for(store, peers):
    fetcher = Fetcher(store, served(peers))
    name = next(name for name in objects_of(store, store.find("d")) if not store.objects.has(name))
    assert digest_of(fetcher.get(name)) == name
    assert digest_of(fetcher.get(name)) == name
    assert len(peers.fetched) == 1
    assert fetcher.peek(name, 0, 4) == store.objects.get(name)[:4]


def test_what_nobody_has_and_other_errors_are_told_to_the_worker(store, peers, monkeypatch):
    fetcher = Fetcher(store, served(peers))
    with pytest.raises(ChunkError, match=r"is not in .*elsewhere") as caught:
        fetcher.get(b"n" * 32)
    assert caught.value.missing

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Peers, "get", full)
    with pytest.raises(StoreError, match="the disk is full"):
        fetcher.get(b"n" * 32)


def test_other_bytes_are_no_object(store, peers, monkeypatch):
    monkeypatch.setattr(Peers, "get", lambda *_: b"something else")
    with pytest.raises(StoreError, match="something else came in its place"):
        Fetcher(store, served(peers)).get(b"n" * 32)


def test_a_process_that_has_ended_is_one_clear_error(store, peers):
    server = Server(peers)
    fetcher = Fetcher(store, server.address)
    folder = Path(server.address.path).parent
    assert folder.stat().st_mode & 0o77 == 0
    server.close()
    assert not folder.exists()
    with pytest.raises(ChunkError, match="data from peers for this worker does not answer"):
        fetcher.get(b"n" * 32)


def test_who_does_not_know_the_key_is_turned_away_and_others_are_served(store, peers):
    address = served(peers)
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        Client(address.path, authkey=b"guess")
    name = next(name for name in objects_of(store, store.find("d")) if not store.objects.has(name))
    assert digest_of(Fetcher(store, address).get(name)) == name


def test_data_sets_of_one_reader_share_a_server_that_ends_with_it(store, peers):
    first, second = (Dataset("d", store=store.directory, reader=peers) for _ in range(2))
    assert first._fetch == second._fetch
    assert pickle.loads(pickle.dumps(first))._fetch == first._fetch

    class Alone(Peers):
        pass

    reader = Alone(peers._store, peers._elsewhere)
    folder = Path(served(reader).path).parent
    del reader
    gc.collect()
    assert not folder.exists()
    assert len([t for t in threading.enumerate() if t.name == "pydec-fetch"]) < 20
    assert len(fetching._SERVERS) >= 1


def test_workers_share_the_bytes_that_may_be_kept_in_memory(store, peers, monkeypatch):
    limits = []

    class Kept(Samples):
        def __init__(self, manifest, reader, limit, keys) -> None:
            limits.append(limit)
            super().__init__(manifest, reader, limit, keys)

    class Worker:
        num_workers = 4

    monkeypatch.setattr("pydec.store.dataset.Samples", Kept)
    data = Dataset("d", store=store.directory, cache_bytes=1000, reader=peers)
    data[0]
    monkeypatch.setattr("pydec.store.dataset.torch_data.get_worker_info", Worker)
    pickle.loads(pickle.dumps(data))[0]
    assert limits == [1000, 250]
