"""Keys of data sets in GRANT transactions: wrapped for readers, and unwrapped from the ledger's state.

An owner grants its keys to itself, too: the ledger then keeps them for it, wrapped, and its identity key is
all that it must not lose.
"""

from __future__ import annotations

from pydec.consensus.access import Action, allow
from pydec.consensus.inbox import Bundle
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import Grant, Revoke
from pydec.crypto.keyring import Keyring, Lock
from pydec.crypto.signing import SigningKey
from pydec.crypto.vault import DatasetKey
from pydec.crypto.wrapping import unwrap_key, wrap_key
from pydec.errors import AccessDenied


def grant(key: DatasetKey, root: bytes, grantee: bytes) -> Grant:
    """What gives a reader the key of one generation, for the owner to sign.

    Args:
        key: of one generation.
        root: of the data set on the ledger.
        grantee: node id of the reader.

    Raises:
        SignatureError: ``grantee`` is no key that somebody could hold.
    """
    return Grant(grantee, dataset=root, generation=key.generation, wrapped=wrap_key(key, root, grantee))


def regrants(state: ChainState, key: DatasetKey, root: bytes) -> list[Grant]:
    """What gives a new generation's key to all who still read a data set; after a revocation.

    Args:
        state: of the chain, with the revocation.
        key: ``successor`` of the last one, of the data set's generation on the ledger.
        root: of the data set.

    Raises:
        ValueError: the ledger is at another generation.
    """
    record = state.datasets[root]
    if key.generation != record.generation:
        raise ValueError(
            f"data set {root.hex()[:16]} is at generation {record.generation}, got a key of {key.generation}"
        )
    has = {access.grantee for access in record.readers if access.generation == key.generation}
    readers = sorted({access.grantee for access in record.readers} - has)
    return [grant(key, root, reader) for reader in readers]


def give(bundle: Bundle, ring: Keyring, grantee: bytes) -> int:
    """Say what gives a reader all keys of a data set that it has not got; how many there are.

    Args:
        bundle: of the owner's transactions.
        ring: the owner's keys.
        grantee: node id of the reader.

    Raises:
        SignatureError: ``grantee`` is no key that somebody could hold.
        TransactionError: the chain knows no such account, or the sender is not the owner.
    """
    has = _generations(bundle.state, ring.root, grantee)
    wanted = [generation for generation in ring if generation not in has]
    for generation in wanted:
        bundle.say(grant(ring[generation], ring.root, grantee))
    return len(wanted)


def take(bundle: Bundle, ring: Keyring, grantee: bytes) -> DatasetKey:
    """Say what takes a data set from a reader: a REVOKE, and a new key for all who still read.

    Args:
        bundle: of the owner's transactions.
        ring: the owner's keys.
        grantee: node id of the reader.

    Returns:
        The new key. What is added from now on is sealed with it; what the reader could open before, it can
        open for ever.

    Raises:
        TransactionError: the reader has no key, or the sender is not the owner.
    """
    bundle.say(Revoke(grantee, dataset=ring.root))
    state = bundle.state
    key = DatasetKey.generate(ring.lock.dataset, state.datasets[ring.root].generation)
    for body in regrants(state, key, ring.root):
        bundle.say(body)
    return key


def inherit(bundle: Bundle, key: DatasetKey, parent: bytes, root: bytes) -> None:
    """Say what lets the readers of a data set read one that extends it, by its newest key.

    Args:
        bundle: of the owner's transactions; the new data set is registered.
        key: the newest of ``parent``, with which the new data is sealed.
        parent, root: of the data set, and of what extends it.
    """
    for access in bundle.state.datasets[parent].readers:
        has = _generations(bundle.state, root, access.grantee)
        if access.generation == key.generation and key.generation not in has:
            bundle.say(grant(key, root, access.grantee))


def _generations(state: ChainState, root: bytes, grantee: bytes) -> set[int]:
    return {access.generation for access in state.datasets[root].readers if access.grantee == grantee}


def keyring(state: ChainState, identity: SigningKey, root: bytes, lock: Lock) -> Keyring:
    """A reader's keys of a data set, unwrapped from the grants on the ledger.

    Args:
        state: of the chain.
        identity: of the reader; owners read by their grants to themselves.
        root: of the data set.
        lock: of the manifest with that root.

    Raises:
        AccessDenied: it may not read the data set, or was not granted the key of a generation.
        FrameError: a granted key does not open, or is not that of the manifest.
    """
    allow(state, identity.public, Action.READ_DATA, root)
    found = [access for access in state.datasets[root].readers if access.grantee == identity.public]
    if not found:
        raise AccessDenied(identity.public, Action.READ_DATA.value, root, "its owner's grant of a key")
    keys = [unwrap_key(access.wrapped, identity, root, access.generation, lock.dataset) for access in found]
    ring = Keyring(root, identity.public, lock, keys)
    ring.check_complete()
    return ring
