"""Chunks from their fragments, and fragments that are made again from others of the same chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from pydec.errors import ChunkError, StoreError
from pydec.store.erasure import Code
from pydec.store.objects import Reader, digest_of


@runtime_checkable
class Several(Protocol):
    """A reader that gets objects from several peers at the same time."""

    def several(self, names: Sequence[bytes], count: int) -> dict[int, bytes]:
        """Objects by their positions in ``names``, once ``count`` are here; fewer if no more can be had."""


def gather(reader: Reader, code: Code, names: Sequence[bytes], name: bytes, n_bytes: int) -> bytes:
    """A chunk, from the first of its fragments that are to be had: data fragments need no arithmetic.

    Args:
        reader: gives fragments; several at a time if it can.
        code: of the data set.
        names: of all fragments.
        name: of the chunk.
        n_bytes: its length.

    Raises:
        ChunkError: fewer are to be had than are needed.
        StoreError: the fragments are not of this chunk, which whoever made the data set is to blame for.
    """
    several = reader.several if isinstance(reader, Several) else partial(_one_by_one, reader)
    found = several(names, code.data)
    if len(found) >= code.data:
        return decoded(code, {number: found[number] for number in sorted(found)[: code.data]}, name, n_bytes)
    raise ChunkError(
        name, True,
        f"chunk {name.hex()[:16]} is lost: {len(found)} of its {code.fragments} fragments are to be had, and "
        f"{code.data} are needed",
    )  # fmt: skip


def _one_by_one(reader: Reader, names: Sequence[bytes], count: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for number, fragment in enumerate(names):
        try:
            found[number] = reader.get(fragment)
        except ChunkError:
            continue
        if len(found) == count:
            break
    return found


def decoded(code: Code, found: dict[int, bytes], name: bytes, n_bytes: int) -> bytes:
    """A chunk from enough fragments, compared with its name.

    Raises:
        StoreError: see ``gather``.
    """
    try:
        data = code.decode(found, n_bytes)
    except ValueError as error:
        raise StoreError(f"chunk {name.hex()[:16]} is wrong from its making: {error}") from None
    if digest_of(data) != name:
        raise StoreError(f"chunk {name.hex()[:16]} is wrong from its making: its fragments give another one")
    return data


def remade(code: Code, chunk: bytes, names: Sequence[bytes], wanted: Iterable[bytes]) -> dict[bytes, bytes]:
    """Fragments of a chunk by their names.

    Args:
        code: of the data set.
        chunk: verified.
        names: of all fragments.
        wanted: of those that are to be made.

    Raises:
        StoreError: the chunk has other fragments than the index says.
    """
    made = dict(zip(names, code.encode(chunk), strict=True))
    found = {}
    for name in wanted:
        if digest_of(made[name]) != name:
            raise StoreError(
                f"fragment {name.hex()[:16]} is wrong from its making: its chunk gives another one"
            )
        found[name] = made[name]
    return found
