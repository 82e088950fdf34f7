"""Sealed checkpoints: hidden on disk, and opened by the identity key of any rank of the run.

Every start of a run draws a key of its own, which seals all that its ranks write; it is wrapped for the
identity key of each (see ``crypto.wrapping``), and the wrapped keys are in every part's manifest. So any of
the ranks, also in another number, opens any part with nothing but its own key and the files; who is no rank
any more opens none that a later start wrote. Every rank signs the key at the start, and takes a key from a
disk with its own signature alone: public keys are public, so whoever can write there could wrap one for them.

The tensors' file is cut into chunks of ``PLAIN_BYTES``, each sealed to ``CHUNK_BYTES`` (see ``crypto.vault``)
under a key of the part: it follows from the start's key, step, rank, length and a nonce that is drawn for
every write. Digests are over sealed bytes: copies are made, verified and repaired without a key.

What a manifest says beside its state stays in the clear: step, ranks, options, facts about the data and
versions. A model by itself (``final.pt.sealed``) is one file: a line of JSON that says what such a manifest
says, and the chunks.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from pydec.crypto.handshake import expand
from pydec.crypto.hashing import CHUNK_BYTES, sha256
from pydec.crypto.signing import SigningKey, verify
from pydec.crypto.suites import KEY_BYTES
from pydec.crypto.vault import OVERHEAD_BYTES, BadChunk, DatasetKey
from pydec.crypto.wrapping import BadWrapping, unwrap, wrap
from pydec.errors import ConfigError, SetupError, SignatureError

FORMAT = 1
PLAIN_BYTES = CHUNK_BYTES - OVERHEAD_BYTES
"""Of a file in one chunk, so that a sealed chunk is one leaf of the sealed file's Merkle tree."""
_ABOUT = b"checkpoints | "
_PART = b"pydec.v1 | checkpoint | "
_SIGNED = b"pydec.v1 | key of checkpoints | "
_STATE = 1 << 63  # index of the chunk that is the state of the manifest
_MODEL = (1 << 64) - 1  # in place of a rank
_MOST_SAID_BYTES = 1 << 22
_HEX = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")
_NAMED = 4  # keys that an error lists
SEALED = ".sealed"
"""What the name of a model's file ends in when it is sealed."""

Entry = Mapping[str, Any]
"""What a start says about its key, in hexadecimal: its id, and by public identity key the wrapped key and the
signature of each rank."""


class Vault:
    """The keys that one rank seals and opens checkpoints with; they live in memory only.

    Args:
        identity: of this rank.
    """

    def __init__(self, identity: SigningKey) -> None:
        self.identity = identity
        self._secrets: dict[str, bytes] = {}
        self._current: Entry = {}

    def draw(self, publics: Iterable[bytes]) -> Entry:
        """A new key for a start of the run, for all ranks to sign; see ``sign`` and ``use``.

        Args:
            publics: public identity keys of the ranks, 32 bytes each.

        Raises:
            SignatureError: one is no key that somebody could hold.
        """
        drawn, secret = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
        readers = sorted(set(publics))
        wrapped = {public.hex(): wrap(secret, public, _ABOUT + drawn).hex() for public in readers}
        return {"id": drawn.hex(), "for": wrapped, "by": {}}

    def sign(self, entry: Entry) -> str:
        """Take the key that was drawn for this start; this rank's signature of it, in hexadecimal.

        Raises:
            SetupError: it does not open for this rank.
        """
        name = str(entry["id"])
        if not self.take(name, entry["for"].get(self.identity.public.hex(), "")):
            raise SetupError(
                f"the key that seals this run's checkpoints was not wrapped for {self._whose}: another rank "
                "knows this one by another key"
            )
        return self.identity.sign(self._statement(name)).hex()

    def use(self, entry: Entry, signatures: Mapping[bytes, str]) -> None:
        """Seal with this key from now on.

        Args:
            entry: as it was drawn.
            signatures: what ``sign`` gave on each rank, by public identity key.
        """
        self._current = {**entry, "by": {public.hex(): words for public, words in signatures.items()}}

    def opens(self, entry: Entry) -> bool:
        """Whether this rank has the key, or unwraps it and finds its own signature on it."""
        name, mine = str(entry["id"]), self.identity.public.hex()
        if name in self._secrets:
            return True
        if not self.take(name, entry["for"].get(mine, "")):
            return False
        try:
            verify(self.identity.public, self._statement(name), bytes.fromhex(entry["by"].get(mine, "")))
        except (SignatureError, ValueError):
            del self._secrets[name]
            return False
        return True

    def take(self, name: str, wrapped: str) -> bool:
        """Take a key that was wrapped for this rank; whether it opens.

        Args:
            name: id of the key.
            wrapped: in hexadecimal.
        """
        try:
            about = _ABOUT + bytes.fromhex(name)
            self._secrets[name] = unwrap(bytes.fromhex(wrapped), self.identity, about)
        except (BadWrapping, ValueError):
            return False
        return True

    def has(self, name: str) -> bool:
        """Whether this rank has the key of that id."""
        return name in self._secrets

    def wrap_for(self, name: str, public: bytes) -> str:
        """A key that this rank has, for another one, in hexadecimal."""
        return wrap(self._secrets[name], public, _ABOUT + bytes.fromhex(name)).hex()

    def lock(self, step: int, rank: int, n_bytes: int) -> tuple[DatasetKey, dict[str, Any]]:
        """A new key for one write of a part, and what its manifest says about it.

        Args:
            step, rank: whose part it is.
            n_bytes: of the file in the clear.
        """
        said = {
            "format": FORMAT,
            "bytes": n_bytes,
            "nonce": os.urandom(KEY_BYTES).hex(),
            "key": self._current,
        }
        key = self._part_key(said, step, rank)
        return key, {**said, "check": key.check.hex()}

    def key(self, path: Path, said: Mapping[str, Any], step: int, rank: int) -> DatasetKey:
        """The key of a part.

        Args:
            path: of its file, for errors.
            said: what its manifest says under "sealed".
            step, rank: whose part it is.

        Raises:
            ConfigError: it is sealed for others, or by a newer pydec.
            SetupError: the manifest was tampered with.
        """
        entry = entry_of(said)
        if entry is None:
            raise SetupError(f"the manifest of {path} does not say how it is sealed: it was tampered with")
        if said["format"] != FORMAT:
            raise ConfigError(
                f"{path} is sealed in format {said['format']}, and this pydec reads format {FORMAT}; use the "
                "version that wrote it"
            )
        if not self.opens(entry):
            raise ConfigError(_for_others(path, entry, self._whose))
        key = self._part_key(said, step, rank)
        if key.check.hex() != said["check"]:
            raise SetupError(
                f"{path} is of another step, rank or key than its manifest says: it was tampered with"
            )
        return key

    def _statement(self, name: str) -> bytes:
        """What a rank signs: the key, by its id and by what proves it to who has it."""
        return _SIGNED + bytes.fromhex(name) + expand(self._secrets[name], _SIGNED)

    @property
    def _whose(self) -> str:
        return self.identity.public.hex()[:16]

    def _part_key(self, said: Mapping[str, Any], step: int, rank: int) -> DatasetKey:
        """Bound to place and length: no chunk of another part, and no shorter file, passes for it."""
        place = b"".join(number.to_bytes(8, "little") for number in (step, rank, said["bytes"]))
        part = sha256(_PART, bytes.fromhex(said["nonce"]), place)
        return DatasetKey(expand(self._secrets[said["key"]["id"]], _PART + part), part)

    def __reduce__(self) -> NoReturn:
        raise TypeError("the keys of checkpoints are neither copied nor stored")


def entry_of(said: Any) -> Entry | None:
    """What a manifest's "sealed" says about the key, if it has the right form; it may be anything at all."""
    if not isinstance(said, dict) or not isinstance(said.get("key"), dict):
        return None
    name, tables = said["key"].get("id"), [said["key"].get("for"), said["key"].get("by")]
    numbers = [said.get("format"), said.get("bytes")]
    if not all(type(number) is int and 0 < number < 1 << 63 for number in numbers):
        return None
    for table in tables:
        if not isinstance(table, dict) or not all(isinstance(words, str) for words in table.values()):
            return None
    if not all(isinstance(words, str) and _HEX.fullmatch(words) for words in (name, said.get("nonce"))):
        return None
    return cast("Entry", said["key"])


def holders(entry: Entry) -> Sequence[str]:
    """Public identity keys that open what a start has sealed, in hexadecimal."""
    return sorted(entry["for"])


def _for_others(path: Path, entry: Entry, whose: str) -> str:
    names = [public[:16] for public in holders(entry)]
    if whose in names:
        return (
            f"{path} is sealed with a key that {whose} has not signed: it was tampered with, or is of a run "
            "that this rank had no part in"
        )
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"{path} is sealed: it opens for identity key{'s' if len(names) > 1 else ''} "
        f"{', '.join(names[:_NAMED])}{more}, and this is {whose}; use the key of a rank that wrote it"
    )


def sealed_bytes(n_bytes: int) -> int:
    """Bytes of the sealed form of a file."""
    return n_bytes + -(-n_bytes // PLAIN_BYTES) * OVERHEAD_BYTES


def seal_into(file: BinaryIO, pieces: Iterable[Any], key: DatasetKey) -> Iterator[memoryview]:
    """Write the sealed form of a file, chunk by chunk, and give each sealed chunk, valid until the next.

    Args:
        file: where to.
        pieces: bytes-like; the file in the clear.
        key: of ``Vault.lock``.
    """
    room = memoryview(bytearray(CHUNK_BYTES))
    for index, chunk in enumerate(chunked(pieces, PLAIN_BYTES)):
        sealed = room[: key.encrypt_chunk_into(index, chunk, room, fresh=True)]
        file.write(sealed)
        yield sealed


def open_file(
    path: Path, key: DatasetKey, n_bytes: int, into: memoryview | None = None, offset: int = 0
) -> Iterator[memoryview]:
    """The chunks of a sealed file in the clear, in order, each valid until the next.

    Args:
        path: of the file.
        key: see ``Vault.key``.
        n_bytes: of the file in the clear.
        into: where the whole file goes, if it is wanted in one piece.
        offset: of the first chunk.

    Raises:
        SetupError: it cannot be read, or a chunk is not what was sealed.
    """
    sealed, room = memoryview(bytearray(CHUNK_BYTES)), memoryview(bytearray(PLAIN_BYTES))
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            for index, start in enumerate(range(0, n_bytes, PLAIN_BYTES)):
                size = min(PLAIN_BYTES, n_bytes - start)
                out = room[:size] if into is None else into[start : start + size]
                key.decrypt_chunk_into(index, _read(file, sealed[: size + OVERHEAD_BYTES]), out)
                yield out
            if file.read(1):
                raise BadChunk("forged", "bytes follow the last chunk")
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror or error}") from None
    except BadChunk as error:
        raise SetupError(f"{path} was tampered with: {error}") from None


def seal_model(file: BinaryIO, content: Any, vault: Vault) -> None:
    """Write a model by itself.

    Args:
        file: where to.
        content: bytes-like; its file in the clear.
        vault: of this rank.
    """
    key, said = vault.lock(0, _MODEL, memoryview(content).nbytes)
    file.write(json.dumps({"pydec_sealed": said}).encode() + b"\n")
    for _ in seal_into(file, [content], key):
        pass


def open_model(path: Path, vault: Vault) -> Iterator[memoryview]:
    """The bytes of a model that ``seal_model`` wrote, piece by piece, each valid until the next.

    Raises:
        ConfigError: it is sealed for others.
        SetupError: it cannot be read, or was tampered with.
    """
    try:
        with open(path, "rb") as file:
            line = file.readline(_MOST_SAID_BYTES)
        said = json.loads(line)["pydec_sealed"]
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError):
        raise SetupError(f"{path} is no sealed model: it does not begin with how it is sealed") from None
    return open_file(path, vault.key(path, said, 0, _MODEL), said["bytes"], offset=len(line))


def seal_state(state: Any, key: DatasetKey) -> dict[str, str]:
    """What stands in a manifest in place of its state."""
    return {"sealed": key.encrypt_chunk(_STATE, json.dumps(state).encode(), fresh=True).hex()}


def open_state(path: Path, state: Any, key: DatasetKey) -> Any:
    """The state that ``seal_state`` sealed.

    Raises:
        SetupError: it is not what was sealed.
    """
    try:
        return json.loads(key.decrypt_chunk(_STATE, bytes.fromhex(state["sealed"])))
    except (BadChunk, LookupError, TypeError, ValueError) as error:
        raise SetupError(f"the state in {path} was tampered with: {error}") from None


def _read(file: BinaryIO, into: memoryview) -> memoryview:
    """As many bytes as there are, up to the length of ``into``."""
    done = 0
    while done < len(into) and (n := file.readinto(into[done:])):  # type: ignore[attr-defined]
        done += n
    return into[:done]


def chunked(pieces: Iterable[Any], n_bytes: int) -> Iterator[memoryview]:
    """Pieces of any length as chunks of ``n_bytes``; copied only where a piece ends inside one."""
    rest, held = memoryview(bytearray(n_bytes)), 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while view:
            if not held and len(view) >= n_bytes:
                yield view[:n_bytes]
                view = view[n_bytes:]
                continue
            n = min(len(view), n_bytes - held)
            rest[held : held + n] = view[:n]
            held, view = held + n, view[n:]
            if held == n_bytes:
                yield rest
                held = 0
    if held:
        yield rest[:held]
