"""A store's directory: objects, the manifests that name them, and what is being added.

    DIR/format           which format this is
    DIR/lock             held by who adds or removes
    DIR/gate             shared by who writes objects of a manifest to come, and held alone by who collects
    DIR/uses/ROOT        shared by jobs that read a data set
    DIR/parts/ROOT       this store came to a data set as a peer's in a job: it has to hold what it owes alone
    DIR/ledgers          paths of the ledgers of such jobs, see ``collecting.py``
    DIR/runs             directories of runs whose checkpoints are here, see ``train.checkpoint_garbage``
    DIR/standing/ROOT    how far all ranks of the last job held a data set, see ``standing.py``
    DIR/objects          see ``objects.py``
    DIR/manifests/ROOT   canonical bytes; a data set is in the store once this file is
    DIR/adding/NAME      shards of an add that was interrupted, see ``adding.py``
    DIR/quarantine       objects that were damaged

Objects come first, and are on the disk before the manifest that names them is written, in one rename.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pydec.disk import DISK, Closing, Disk, create_whole, naming
from pydec.errors import ConfigError, FrameError, StoreError
from pydec.store.manifest import MOST_MANIFEST_BYTES, Manifest, Shard
from pydec.store.objects import Objects, Reader
from pydec.store.shard import Index, Layout

_FORMAT = b"pydec store 1\n"
_PARTS = frozenset(
    {
        "format", ".format.tmp", "lock", "gate", "objects", "manifests", "adding", "quarantine", "keys",
        "uses", "parts", "ledgers", "runs", "standing",
    }
)  # fmt: skip
_NAP_S = 0.01


def default_directory() -> Path:
    """Where this user's store is: ``~/.local/share/pydec/store``, or where XDG_DATA_HOME says."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "pydec" / "store"


class Store(Closing):
    """A store on this machine; also a context manager.

    Args:
        directory: of the store; None is ``default_directory``.
        create: make it if it is not there; its parents too.
        disk: the file system.
        syncs: see ``Objects``.

    Attributes:
        directory: as given.
        objects: what it holds.

    Raises:
        ConfigError: there is no store, or something else.
        StoreError: it cannot be made or read, or is of another format.
    """

    def __init__(
        self, directory: Path | None = None, *, create: bool = False, disk: Disk = DISK, syncs: int = 4
    ) -> None:
        self.directory = default_directory() if directory is None else Path(directory)
        self.disk = disk
        self.objects = Objects(self.directory, disk, syncs)
        mark = self.directory / "format"
        if not disk.exists(mark):
            if not create:
                raise ConfigError(
                    f"there is no store in {self.directory}; pydec data add makes one, --store DIR names "
                    "another"
                )
            self._make()
        with naming(mark, "read", StoreError):
            found = disk.read_whole(mark, 64)
        if found != _FORMAT:
            raise StoreError(
                f"{mark} says {found[:32]!r}, not {_FORMAT!r}: it is of another pydec, or damaged"
            )

    def _make(self) -> None:
        if not _PARTS.issuperset(self.disk.names(self.directory)):
            raise ConfigError(f"{self.directory} holds other things; choose an empty directory for a store")
        with naming(self.directory, "made", StoreError):
            for parent in [*reversed(self.directory.parents), self.directory]:
                self.disk.make_directory(parent)
            for name in ("manifests", "adding"):
                self.disk.make_directory(self.directory / name)
        self.objects.create()
        with naming(self.directory / "format", "written", StoreError):
            create_whole(self.disk, self.directory / "format", _FORMAT)

    @contextlib.contextmanager
    def lock(self, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the right to add and remove.

        Args:
            wait_s: how long to wait for another process to let go of it.

        Raises:
            StoreError: another process has it.
        """
        words = f"{self.directory} is in use: another process adds or removes data; wait for it to end"
        with self._locked(self.directory / "lock", words, wait_s=wait_s):
            yield

    @contextlib.contextmanager
    def writing(self, wait_s: float = 0.0) -> Iterator[None]:
        """Within, nobody removes an object that no manifest names yet; many may be in it at once.

        Args:
            wait_s: how long to wait for another process to end.

        Raises:
            StoreError: another process is removing some.
        """
        words = f"{self.directory} is in use: another process collects garbage; wait for it to end"
        with self._locked(self.directory / "gate", words, shared=True, wait_s=wait_s):
            yield

    @contextlib.contextmanager
    def alone(self, wait_s: float = 0.0) -> Iterator[None]:
        """Within, nobody is in ``writing``: every object is named by a manifest, or by none that will be.

        Args:
            wait_s: how long to wait for others to leave it.

        Raises:
            StoreError: another process is in it.
        """
        words = f"{self.directory} is in use: another process writes into it; wait for it to end"
        with self._locked(self.directory / "gate", words, wait_s=wait_s):
            yield

    @contextlib.contextmanager
    def using(self, root: bytes) -> Iterator[None]:
        """Within, nobody removes a data set; many may use it at once.

        Raises:
            StoreError: another process is removing it.
        """
        with naming(self.directory / "uses", "made", StoreError):
            self.disk.make_directory(self.directory / "uses")
        words = f"data set {root.hex()[:16]} is being removed from {self.directory}"
        with self._locked(self._use(root), words, shared=True):
            yield

    @contextlib.contextmanager
    def _locked(self, path: Path, words: str, *, shared: bool = False, wait_s: float = 0.0) -> Iterator[None]:
        with naming(path, "opened", StoreError):
            try:
                descriptor = self.disk.open(path, create=True)
            except FileExistsError:
                descriptor = self.disk.open(path)
        try:
            until_s = time.monotonic() + wait_s
            while True:
                with naming(path, "locked", StoreError), contextlib.suppress(BlockingIOError):
                    self.disk.lock(descriptor, shared=shared)
                    break
                if time.monotonic() >= until_s:
                    raise StoreError(words)
                time.sleep(_NAP_S)
            yield
        finally:
            self.disk.close(descriptor)

    def roots(self) -> list[bytes]:
        """Roots of all data sets that are here, damaged ones too."""
        found = []
        for name in self.disk.names(self.directory / "manifests"):
            with contextlib.suppress(ValueError):
                if len(name) == 64:
                    found.append(bytes.fromhex(name))
        return found

    def manifest(self, root: bytes) -> Manifest:
        """The manifest of a root, verified.

        Raises:
            StoreError: it is missing, damaged, or of another format.
        """
        path = self._manifest(root)
        with naming(path, "read", StoreError):
            data = self.disk.read_whole(path, MOST_MANIFEST_BYTES)
        try:
            found = Manifest.decode(data)
        except FrameError as error:
            raise StoreError(f"{path} cannot be used: {error}") from None
        if found.root != root:
            raise StoreError(f"{path} is damaged: its root is {found.root.hex()[:16]}; put a copy there")
        return found

    def manifests(self) -> dict[bytes, Manifest | StoreError]:
        """All data sets by root; in place of a manifest that cannot be read, why."""
        found: dict[bytes, Manifest | StoreError] = {}
        for root in self.roots():
            try:
                found[root] = self.manifest(root)
            except StoreError as error:
                found[root] = error
        return found

    def find(self, name: str) -> Manifest:
        """The data set of that name, or whose root begins with these 8 or more hexadecimal digits.

        Raises:
            ConfigError: there is none.
            StoreError: its manifest is damaged.
        """
        all_ = self.manifests()
        for found in all_.values():
            if isinstance(found, Manifest) and found.name == name:
                return found
        if len(name) >= 8:
            for root, found in all_.items():
                if root.hex().startswith(name):
                    if isinstance(found, StoreError):
                        raise found
                    return found
        known = sorted(found.name for found in all_.values() if isinstance(found, Manifest))
        broken = [str(found) for found in all_.values() if isinstance(found, StoreError)]
        raise ConfigError(
            f"no data set {name!r} in {self.directory}; there {'are' if known else 'is'} "
            + (", ".join(known) or "none")
            + ("".join(f"; {words}" for words in broken))
        )

    def check_free(self, name: str) -> None:
        """Whether no data set has a name.

        Raises:
            ConfigError: one has.
        """
        for found in self.manifests().values():
            if isinstance(found, Manifest) and found.name == name:
                raise ConfigError(
                    f"{self.directory} has a data set {name!r} ({found.root.hex()[:16]}) already; choose "
                    "another "
                    f"--name, or remove that one: pydec data remove {name}"
                )

    def add_manifest(self, manifest: Manifest) -> None:
        """Let a data set be in the store; all its objects are to be on the disk, here or at peers.

        Raises:
            ConfigError: another data set has its name.
            StoreError: the disk is full or fails.
        """
        path = self._manifest(manifest.root)
        if manifest.root not in self.roots():
            self.check_free(manifest.name)
        with naming(path, "written", StoreError):
            create_whole(self.disk, path, manifest.encode())

    def note_part(self, root: bytes) -> None:
        """Remember that a data set that is about to be here came from peers.

        Raises:
            StoreError: the disk is full or fails.
        """
        path = self._part(root)
        with naming(path, "written", StoreError), contextlib.suppress(FileExistsError):
            self.disk.make_directory(path.parent)
            self.disk.close(self.disk.open(path, create=True))
            self.disk.sync_directory(path.parent)

    def is_part(self, root: bytes) -> bool:
        """Whether a data set came from peers, so that nobody here counts on having all of it."""
        return self.disk.exists(self._part(root))

    def forget(self, root: bytes) -> None:
        """Let a data set no longer be in the store; ``collect`` then frees its objects.

        Raises:
            StoreError: a job uses it, or the disk does not let it.
        """
        path, use = self._manifest(root), self._use(root)
        with contextlib.ExitStack() as stack:
            if self.disk.exists(use):
                words = f"data set {root.hex()[:16]} is in use by a running job; wait for it to end"
                stack.enter_context(self._locked(use, words))
            with naming(path, "removed", StoreError):
                self.disk.remove(path)
                self.disk.sync_directory(path.parent)
                self.disk.remove(self._part(root))
                self.disk.remove(self.directory / "standing" / root.hex())

    def layout(self, manifest: Manifest, number: int, reader: Reader | None = None) -> Layout:
        """Where the samples of a shard are.

        Args:
            manifest: of the data set.
            number: of the shard.
            reader: where objects come from; None: from here.

        Raises:
            ChunkError: its index is missing or damaged.
            StoreError: the index is not of this shard, which whoever made the manifest is to blame for.
        """
        shard = manifest.shards[number]
        return layout_of(manifest, shard, (reader or self.objects).get(shard.index))

    def named(self, keep: Iterator[Shard] | None = None, roots: Sequence[bytes] | None = None) -> set[bytes]:
        """Names of all objects that some manifest, or one of these shards, needs.

        Args:
            keep: shards without a manifest.
            roots: of the manifests that are asked; None asks all.

        Raises:
            StoreError: a manifest or index is damaged, so that nobody can say.
        """
        needed: set[bytes] = set()
        for root in self.roots() if roots is None else roots:
            manifest = self.manifest(root)
            for number, shard in enumerate(manifest.shards):
                needed.add(shard.index)
                needed.update(self.layout(manifest, number).index.objects)
        for shard in keep or ():
            needed.add(shard.index)
            with contextlib.suppress(StoreError, FrameError):  # an add that finds it gone begins anew
                needed.update(Index.decode(self.objects.get(shard.index)).objects)
        return needed

    def unnamed(
        self, keep: Iterator[Shard] | None = None, among: Collection[bytes] | None = None
    ) -> list[bytes]:
        """Names of the objects here that no manifest needs.

        Args:
            keep: shards without a manifest whose objects count as needed.
            among: look at these objects alone.

        Raises:
            StoreError: nobody can say what is needed.
        """
        needed = self.named(keep)
        looked_at = self.objects.names() if among is None else filter(self.objects.has, among)
        return [digest for digest in looked_at if digest not in needed]

    def collect(self, keep: Iterator[Shard] | None = None) -> int:
        """Remove objects that no manifest needs; who calls holds the lock.

        Args:
            keep: shards without a manifest whose objects stay.

        Returns:
            How many.

        Raises:
            StoreError: nobody can say what is needed, or another process writes objects whose manifest is to
                come, and nothing was removed; or the disk fails.
        """
        with self.alone():
            gone = self.unnamed(keep)
            for digest in gone:
                self.objects.remove(digest)
            self.objects.sweep()
        return len(gone)

    def close(self) -> None:
        """End what runs; idempotent."""
        self.objects.close()

    def _manifest(self, root: bytes) -> Path:
        return self.directory / "manifests" / root.hex()

    def _part(self, root: bytes) -> Path:
        return self.directory / "parts" / root.hex()

    def _use(self, root: bytes) -> Path:
        return self.directory / "uses" / root.hex()


def layout_of(manifest: Manifest, shard: Shard, data: bytes) -> Layout:
    """Where the samples of a shard are, by the bytes of its index object.

    Raises:
        StoreError: they are not of this shard.
    """
    try:
        return Layout(manifest.head, shard, Index.decode(data))
    except FrameError as error:
        raise StoreError(
            f"data set {manifest.name} is wrong from its making, index {shard.index.hex()[:16]}: {error}"
        ) from None
