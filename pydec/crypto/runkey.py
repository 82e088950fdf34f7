"""Run keys: made at start, held in memory, certified by the identity key for one run and some epochs.

Votes are signed by the run key. Erased at the end, it cannot sign another past later, whoever then holds
the identity's file (long-range forgery). The run key signs the certificate too: nobody can claim a key that
another node holds, and so no node can be locked out of, or blamed for, its own key.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from pydec.crypto.signing import KEY_BYTES, SIGNATURE_BYTES, SigningKey, verify
from pydec.errors import FrameError, SignatureError

ID_BYTES = 32
CERTIFICATE_BYTES = 2 * KEY_BYTES + 2 * ID_BYTES + 16 + 2 * SIGNATURE_BYTES
_DOMAIN = b"pydec.run-key.v1"
_EPOCHS = struct.Struct(">QQ")


@dataclass(frozen=True)
class RunCertificate:
    """A statement of ``identity``: in these epochs of this run, ``key`` speaks for me.

    Args:
        identity, key: public keys, 32 bytes each.
        chain_id, run_id: 32 bytes each.
        first_epoch, last_epoch: the range, both ends in it.
        by_identity, by_key: 64 bytes each, over everything above.
    """

    identity: bytes
    key: bytes
    chain_id: bytes
    run_id: bytes
    first_epoch: int
    last_epoch: int
    by_identity: bytes
    by_key: bytes

    def encode(self) -> bytes:
        """The 272 bytes that ``decode`` reads."""
        return self._stated()[len(_DOMAIN) :] + self.by_identity + self.by_key

    @classmethod
    def decode(cls, data: bytes) -> RunCertificate:
        """A certificate from its bytes; nothing is verified.

        Raises:
            FrameError: another length, or an empty range.
        """
        if len(data) != CERTIFICATE_BYTES:
            raise FrameError(f"a run certificate has {CERTIFICATE_BYTES} bytes, got {len(data)}")
        identity, key, chain_id, run_id = (data[at : at + 32] for at in (0, 32, 64, 96))
        first, last = _EPOCHS.unpack_from(data, 128)
        if first > last:
            raise FrameError(f"a run certificate for epochs {first} to {last} covers none")
        at = 128 + _EPOCHS.size
        return cls(
            identity,
            key,
            chain_id,
            run_id,
            first,
            last,
            data[at : at + SIGNATURE_BYTES],
            data[at + SIGNATURE_BYTES :],
        )

    def verify(self, chain_id: bytes, epoch: int) -> None:
        """Check both signatures, and that it is meant for this chain and epoch.

        Raises:
            SignatureError: with the field that does not fit.
        """
        if self.chain_id != chain_id:
            raise SignatureError(
                f"the run certificate of {self.identity.hex()[:16]} is for chain {self.chain_id.hex()[:16]}, "
                f"not {chain_id.hex()[:16]}"
            )
        if not self.first_epoch <= epoch <= self.last_epoch:
            raise SignatureError(
                f"the run certificate of {self.identity.hex()[:16]} covers epochs {self.first_epoch} to "
                f"{self.last_epoch}, not {epoch}"
            )
        stated = self._stated()
        verify(self.identity, stated, self.by_identity)
        verify(self.key, stated, self.by_key)

    def _stated(self) -> bytes:
        return b"".join(
            (
                _DOMAIN,
                self.identity,
                self.key,
                self.chain_id,
                self.run_id,
                _EPOCHS.pack(self.first_epoch, self.last_epoch),
            )
        )


def certify(
    identity: SigningKey, key: SigningKey, chain_id: bytes, run_id: bytes, epochs: tuple[int, int]
) -> RunCertificate:
    """Certify ``key`` for the run ``run_id`` of a chain, from the first to the last of ``epochs``.

    Raises:
        ValueError: an id that has not 32 bytes, or an empty range.
    """
    if len(chain_id) != ID_BYTES or len(run_id) != ID_BYTES:
        raise ValueError(f"chain id and run id have {ID_BYTES} bytes, got {len(chain_id)} and {len(run_id)}")
    if not 0 <= epochs[0] <= epochs[1] < 1 << 64:
        raise ValueError(f"a run key needs a range of epochs in [0, 2^64), got {epochs}")
    bare = RunCertificate(identity.public, key.public, chain_id, run_id, *epochs, b"", b"")
    stated = bare._stated()
    return RunCertificate(
        identity.public, key.public, chain_id, run_id, *epochs, identity.sign(stated), key.sign(stated)
    )


def new_run_key(
    identity: SigningKey, chain_id: bytes, epochs: tuple[int, int], run_id: bytes | None = None
) -> tuple[SigningKey, RunCertificate]:
    """A new run key and its certificate; the run id is drawn if None."""
    key = SigningKey.generate()
    return key, certify(identity, key, chain_id, run_id or os.urandom(ID_BYTES), epochs)
