"""One process of a rank fetches for the workers of its DataLoaders: they read the store, and ask it for more.

A worker is no peer: it must not use the rank's connections, as a forked process would share them, nor open
its own. So the rank's process listens on a socket of this machine; a worker that finds an object missing or
damaged sends its name, and gets the bytes or an error. The rank's process verifies what comes from peers, and
keeps it in the store; a worker verifies it again.

    question    32 bytes: the object's name
    answer      1 byte: 0 and the object; 1: it is missing; 2: it is damaged; 3: another error; and words
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from pydec.errors import ChunkError, PydecError, StoreError
from pydec.store.objects import MOST_BYTES, Reader, digest_of
from pydec.store.store import Store

_NAME_BYTES = 32
_MOST_PATH = 80  # of a socket: the system takes some 100 bytes
_NAP_S = 0.01
_SERVERS: weakref.WeakKeyDictionary[Reader, Server] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Address:
    """Where a rank's process listens, and what proves that who connects may; made for pickling to workers."""

    path: str
    key: bytes


class Server:
    """Answers workers from a reader, in threads of its own.

    Args:
        reader: must be usable from any thread. Not kept alive.

    Raises:
        StoreError: there is no room for a socket.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = weakref.ref(reader)
        try:
            folder = tempfile.mkdtemp(prefix="pydec-")
            if len(folder) > _MOST_PATH:
                Path(folder).rmdir()
                folder = tempfile.mkdtemp(prefix="pydec-", dir="/tmp")
            self.address = Address(f"{folder}/fetch", secrets.token_bytes(32))
            self._listener = Listener(self.address.path, "AF_UNIX", backlog=64, authkey=self.address.key)
        except OSError as error:
            raise StoreError(f"workers cannot ask this process for data: {error}") from None
        self._end = weakref.finalize(reader, _remove, self._listener, folder, os.getpid())
        threading.Thread(target=self._accept, name="pydec-fetch", daemon=True).start()

    def close(self) -> None:
        """Listen no more; idempotent."""
        self._end()

    def _accept(self) -> None:
        while self._end.alive:
            try:
                connection = self._listener.accept()
            except Exception:  # who does not know the key, too many open files, or the end
                time.sleep(_NAP_S)
                continue
            served = threading.Thread(target=self._serve, args=(connection,), name="pydec-fetch", daemon=True)
            served.start()

    def _serve(self, connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                name = connection.recv_bytes(_NAME_BYTES)
                reader = self._reader()
                if reader is None:
                    return
                try:
                    answer = b"\0" + reader.get(name)
                except ChunkError as error:
                    answer = (b"\1" if error.missing else b"\2") + str(error).encode()
                except PydecError as error:
                    answer = b"\3" + str(error).encode()
                del reader
                connection.send_bytes(answer)


class Fetcher:
    """A ``Reader`` in a worker: the store of its rank, then the rank's process; also a ``Peeker``.

    Args:
        store: of the rank.
        address: where the rank's process listens.
    """

    def __init__(self, store: Store, address: Address) -> None:
        self._store, self._address = store, address
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def get(self, digest: bytes) -> bytes:
        """See ``Reader.get``.

        Raises:
            ChunkError: the rank's process does not get it, or has ended.
            StoreError: the rank's process has another error.
        """
        with contextlib.suppress(ChunkError):
            return self._store.objects.get(digest)
        answer = self._ask(digest)
        kind, data = answer[:1], answer[1:]
        if kind == b"\0" and digest_of(data) == digest:
            return data
        words = data.decode(errors="replace") if kind != b"\0" else "something else came in its place"
        if kind in (b"\1", b"\2"):
            raise ChunkError(digest, kind == b"\1", words)
        raise StoreError(f"object {digest.hex()[:16]}: {words}")

    def peek(self, digest: bytes, offset: int, n_bytes: int) -> bytes | None:
        """See ``Peeker.peek``."""
        return self._store.objects.peek(digest, offset, n_bytes)

    def _ask(self, digest: bytes) -> bytes:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = Client(self._address.path, "AF_UNIX", authkey=self._address.key)
                self._connection.send_bytes(digest)
                return self._connection.recv_bytes(MOST_BYTES + 1)
            except (EOFError, OSError) as error:
                self._connection = None
                raise ChunkError(
                    digest, True,
                    f"object {digest.hex()[:16]} is not in {self._store.directory}, and the process that "
                    f"gets data from peers for this worker does not answer: {str(error) or 'it has ended'}",
                ) from None  # fmt: skip


def served(reader: Reader) -> Address:
    """Where workers may ask for what a reader gives; one server for each reader.

    Raises:
        StoreError: see ``Server``.
    """
    server = _SERVERS.get(reader)
    if server is None:
        server = _SERVERS[reader] = Server(reader)
    return server.address


def _remove(listener: Listener, folder: str, pid: int) -> None:
    if os.getpid() == pid:  # not in a worker that was forked
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
            knock.connect(f"{folder}/fetch")  # the thread that waits there sees that this is the end
        with contextlib.suppress(OSError):
            listener.close()
        shutil.rmtree(folder, ignore_errors=True)
