"""Keys of data sets in GRANT transactions: wrapped for readers, and unwrapped from the ledger's state.

An owner grants its keys to itself, too: the ledger then keeps them for it, wrapped, and its identity key is
all that it must not lose.
"""

from __future__ import annotations

from pydec.consensus.access import Action, allow
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import Grant
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
