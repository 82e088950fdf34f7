"""Append to a data set: a new one that begins with all shards of its parent, and names it.

Only the new samples are written. The new manifest lists the parent's shards before its own, so that it is
read, kept, verified and repaired like any other, also where the parent is not; its root fixes both, and
``Policy.parent`` says what it extends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError
from pydec.store.inputs.base import Input
from pydec.store.manifest import Head, Manifest, Policy, Shard


def policy_of(parent: Manifest, given: Input, policy: Policy | None, private: SigningKey | None) -> Policy:
    """The policy of a data set that extends another one: its parent's, with the copies asked for, if any.

    Args:
        parent: what is appended to.
        given: what is appended.
        policy: asked for; None: the parent's.
        private: who seals it; None: nobody.

    Raises:
        ConfigError: the new samples are of another kind, have other fields or classes, or are kept otherwise;
            or one of both is private.
    """
    old, words = parent.head, f"--append {parent.name}"
    for what, mine, theirs in (
        ("kind", given.kind, old.kind),
        ("fields", given.fields, old.fields),
        ("classes", given.classes, old.classes),
    ):
        if mine != theirs:
            raise ConfigError(
                f"{words}: its {what} {_words(theirs)} and those of the new data {_words(mine)} differ; add "
                "it as a data set of its own"
            )
    if old.policy.encryption or private is not None:
        raise ConfigError(
            f"{words} is for data that everybody may read; more private data for the same readers is a data "
            f"set of its own, --private --extends {parent.name}"
        )
    if policy is None:
        return replace(old.policy, parent=parent.root)
    if _fragments(policy) != _fragments(old.policy):
        raise ConfigError(f"{words}: it is kept with {_kept(old.policy)}, so ask for the same here")
    return replace(policy, parent=parent.root, owner=old.policy.owner)


def joined(parent: Manifest, head: Head, shards: Sequence[Shard]) -> Manifest:
    """The manifest of a data set that extends another one.

    Args:
        parent: what is appended to.
        head: of the new samples alone.
        shards: of them.

    Raises:
        ValueError: they do not go together.
    """
    old = parent.head
    sources, taken = [*old.sources], {source.path for source in old.sources}
    for source in head.sources:
        path = _free(source.path, taken)
        taken.add(path)
        sources.append(replace(source, path=path, first=source.first + old.samples))
    samples, n_bytes = old.samples + head.samples, old.n_bytes + head.n_bytes
    whole = replace(head, samples=samples, n_bytes=n_bytes, sources=tuple(sources))
    return Manifest(whole, (*parent.shards, *shards))


def _free(path: bytes, taken: set[bytes]) -> bytes:
    """A path that no file has yet: x-2.npy where there is x.npy."""
    folder, slash, name = path.rpartition(b"/")
    stem, dot, suffix = name.rpartition(b".")
    if not stem:
        stem, dot, suffix = name, b"", b""
    found, number = path, 2
    while found in taken:
        found, number = b"%s%s%s-%d%s%s" % (folder, slash, stem, number, dot, suffix), number + 1
    return found


def _fragments(policy: Policy) -> tuple[int, int]:
    """Data and parity fragments of a chunk; none of both without erasure coding."""
    return (policy.replicas, policy.parity) if policy.parity else (0, 0)


def _kept(policy: Policy) -> str:
    return f"--replicas {policy.replicas}" if policy.code is None else f"--erasure {policy.code}"


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(getattr(item, "name", str(item)) for item in value) + ")"
    return str(value)
