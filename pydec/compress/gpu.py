"""Compressors whose vectors and payloads lie on a GPU: the bytes that the same compressor writes on the CPU.

Headers are written and read by the host, bodies by the kernels of ``pydec.kernels.cuda``, and nothing but
``measure`` and ``check`` waits for the GPU. So what the CPU's compressors raise cannot be raised here:
encoders add what they refuse to a counter on the GPU, ``refused``, and ``inspect`` adds what is wrong with a
body that somebody sent to another. Whoever moves the payloads looks at both, when these have arrived in host
memory anyway.

Error feedback is not here: what gossips on a GPU sends differences or whole models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Payload
from pydec.compress.entries import BODY_AT
from pydec.compress.half import HalfPrecision
from pydec.compress.mirror import Mirror
from pydec.compress.none import Uncompressed
from pydec.compress.quantiser import Quantiser
from pydec.compress.topk import TopK
from pydec.compress.wire import HEADER_BYTES, as_bytes, check_length, write_header
from pydec.errors import FrameError
from pydec.kernels import cuda

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

C = TypeVar("C", bound=Compressor)


class OnGpu(Generic[C]):
    """What mixers ask of a compressor, with a ``Mirror`` for every payload and a tensor for every vector.

    Payloads that come from others have gone through ``inspect`` or ``measure``.

    Args:
        host: the compressor; immutable, it says all that does not depend on where vectors are.
        refused: int64 of one element on the GPU: how many elements or blocks were refused so far.
    """

    head: int = HEADER_BYTES
    """Bytes of the header."""

    def __init__(self, host: C, refused: Tensor) -> None:
        self.host = host
        self.refused = refused
        self.wire_id, self.lossless, self.oblivious = host.wire_id, host.lossless, host.oblivious
        self.block = host.block

    def max_bytes(self, n: int) -> int:
        """As ``Compressor.max_bytes``."""
        return self.host.max_bytes(n)

    def delta(self, n: int) -> float:
        """As ``Compressor.delta``."""
        return self.host.delta(n)

    def keyed(self, key: int) -> OnGpu[C]:
        """As ``Compressor.keyed``."""
        keyed = self.host.keyed(key)
        return self if keyed is self.host else type(self)(cast(C, keyed), self.refused)

    def check(self, payload: Mirror | Payload, n: int) -> None:
        """As ``Compressor.check``, and of equal parameters; waits for the GPU."""
        content = as_bytes(payload.fetch() if isinstance(payload, Mirror) else payload)
        self.look(content, n)
        self.host.check(content, n)

    def refusal(self, refused: int) -> ValueError:
        """Why a vector was not encoded."""
        name = getattr(self.host, "name", type(self.host).__name__)
        return ValueError(
            f"{name} cannot encode a vector on a GPU: {refused} of its elements or blocks hold NaN or "
            "infinity, or would decode to infinity; skip the step that made them or lower the learning rate "
            "(compressor 'none' sends them as they are)"
        )

    def views(self, payloads: Sequence[Mirror], n: int) -> list[Tensor] | None:
        """As ``Compressor.views``."""
        return None

    def decode(self, payload: Mirror, out: Tensor) -> Tensor:
        """As ``Compressor.decode``; -0 becomes 0."""
        self.accumulate([payload], [1.0], out.zero_())
        return out

    def sqdist(self, payload: Mirror, x: Tensor) -> Tensor:
        """As ``Compressor.sqdist``; a float64 of one element on the GPU."""
        return cast("Tensor", kernels.sqdist(self.decode(payload, x.new_empty(len(x))), x))

    def measure(self, payloads: Sequence[Mirror], x: Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which payloads that others sent are well formed, and their squared distances to x; waits once.

        Args:
            payloads: m payloads that nobody has looked at.
            x: shape (n,), on the GPU.

        Returns:
            Two arrays of shape (m,) in host memory; the distance of what is not well formed is any number.
        """
        import torch

        m = len(payloads)
        squared, faults = x.new_zeros(m, dtype=torch.float64), x.new_zeros(m, dtype=torch.int64)
        good = np.ones(m, np.bool_)
        for k, payload in enumerate(payloads):
            try:
                self.inspect(payload, len(x), faults[k : k + 1])
            except FrameError:
                good[k] = False
            else:
                squared[k : k + 1] = self.sqdist(payload, x)
        found = torch.cat([squared, faults.double()]).cpu().numpy()
        return good & (found[m:] == 0), np.asarray(found[:m])

    def accumulate_own(
        self,
        own: Mirror,
        own_weight: float,
        payloads: Sequence[Mirror],
        weights: Sequence[float],
        out: Tensor,
    ) -> None:
        """As ``Compressor.accumulate_own``."""
        self.accumulate([own, *payloads], [own_weight, *weights], out)

    @abstractmethod
    def encode_into(self, x: Tensor, out: Mirror) -> int:
        """As ``Compressor.encode_into``."""

    @abstractmethod
    def accumulate(self, payloads: Sequence[Mirror], weights: Sequence[float], out: Tensor) -> None:
        """As ``Compressor.accumulate``."""

    @abstractmethod
    def look(self, head: Bytes, n: int) -> None:
        """Raise FrameError unless the header is one of this compressor, with these parameters."""

    def inspect(self, payload: Mirror, n: int, faults: Tensor) -> bool:
        """Check a payload that somebody sent: its header and length now, its body on the GPU.

        Args:
            payload: what arrived.
            n: for how many elements it must be.
            faults: int64 of one element; more than 0 afterwards if ``check`` would refuse the body.

        Returns:
            Whether there is anything to wait for: False where no body is wrong.

        Raises:
            FrameError: the header or the length is wrong.
        """
        self.look(payload.head, n)
        check_length(cast(Bytes, payload), self.max_bytes(n), type(self.host).__name__.lower())
        return self._count_faults(payload, n, faults)

    def _count_faults(self, payload: Mirror, n: int, faults: Tensor) -> bool:
        return False


class GpuPlain(OnGpu[Uncompressed]):
    """The float32 values themselves."""

    def encode_into(self, x: Tensor, out: Mirror) -> int:
        """Copy x behind a header."""
        length = self.max_bytes(len(x))
        write_header(out.head, self.wire_id, 0, len(x))
        _floats(out, HEADER_BYTES, len(x)).copy_(x)
        return length

    def views(self, payloads: Sequence[Mirror], n: int) -> list[Tensor]:
        """As ``Compressor.views``."""
        return [_floats(payload, HEADER_BYTES, n) for payload in payloads]

    def sqdist(self, payload: Mirror, x: Tensor) -> Tensor:
        """As ``Compressor.sqdist``; a float64 of one element on the GPU."""
        return cast("Tensor", kernels.sqdist(_floats(payload, HEADER_BYTES, len(x)), x))

    def accumulate(self, payloads: Sequence[Mirror], weights: Sequence[float], out: Tensor) -> None:
        """One pass over ``out`` and all payloads."""
        kernels.mix([out, *self.views(payloads, len(out))], [1.0, *weights], out)

    def look(self, head: Bytes, n: int) -> None:
        """See ``OnGpu.look``."""
        self.host._read(head, n)


class GpuHalf(OnGpu[HalfPrecision]):
    """Codes of 16 bits."""

    def encode_into(self, x: Tensor, out: Mirror) -> int:
        """Round x behind a header."""
        write_header(out.head, self.wire_id, 0, len(x))
        cuda.cast_encode([x], [_shorts(out, len(x))], self.host.name, bad=self.refused)
        return self.max_bytes(len(x))

    def accumulate(self, payloads: Sequence[Mirror], weights: Sequence[float], out: Tensor) -> None:
        """One pass over ``out`` and all payloads."""
        codes = [_shorts(payload, len(out)) for payload in payloads]
        cuda.cast_accumulate([codes], weights, [out], self.host.name)

    def look(self, head: Bytes, n: int) -> None:
        """See ``OnGpu.look``."""
        self.host._read_parameter(head, n)

    def _count_faults(self, payload: Mirror, n: int, faults: Tensor) -> bool:
        cuda.cast_count_nonfinite(_shorts(payload, n), self.host.name, faults)
        return True


class GpuQuantiser(OnGpu[Quantiser]):
    """Scales of blocks, and codes of a few bits."""

    def encode_into(self, x: Tensor, out: Mirror) -> int:
        """Quantise x behind a header."""
        codes, scales, block = self._start(out, len(x))
        cuda.quant_encode([x], [codes], [scales], self.host.codec, block, key=self.host.key, bad=self.refused)
        return self.max_bytes(len(x))

    def encode_difference_into(self, x: Any, y: Any, out: Any) -> int:
        """As ``Quantiser.encode_difference_into``."""
        codes, scales, block = self._start(out, len(x))
        host = self.host
        cuda.quant_encode_difference(
            [x], [y], [codes], [scales], host.codec, block, key=host.key, bad=self.refused
        )
        return self.max_bytes(len(x))

    def sqdist(self, payload: Mirror, x: Tensor) -> Tensor:
        """As ``Compressor.sqdist``; a float64 of one element on the GPU."""
        codes, scales = self._split(payload, len(x))
        return cuda.quant_sqdist(codes, scales, x, self.host.codec, self.block)

    def accumulate(self, payloads: Sequence[Mirror], weights: Sequence[float], out: Tensor) -> None:
        """One pass over ``out`` and all payloads."""
        codes, scales = self._split_all(payloads, len(out))
        cuda.quant_accumulate([codes], [scales], weights, [out], self.host.codec, self.block)

    def absorb_difference(
        self,
        own: Any,
        own_weight: float,
        payloads: Sequence[Any],
        weights: Sequence[float],
        state: tuple[Any, Any, Any],
        gamma: float,
    ) -> None:
        """As ``Quantiser.absorb_difference``."""
        x, estimate, mixed = state
        codes, scales = self._split_all([own, *payloads], len(x))
        kernels.choco_absorb(
            x,
            estimate,
            mixed,
            gamma,
            codes,
            scales,
            [own_weight, *weights],
            self.host.codec,
            self.block,
        )

    def look(self, head: Bytes, n: int) -> None:
        """See ``OnGpu.look``."""
        codec, block = self.host._read_parameters(head, n)
        if (codec, block) != (self.host.codec, self.block):
            raise FrameError(
                f"{self.host.name} payload has codec {codec} and block {block}, this rank's have "
                f"{self.host.codec} and {self.block}"
            )

    def _count_faults(self, payload: Mirror, n: int, faults: Tensor) -> bool:
        import torch

        codes, scales = self._split(payload, n)
        cuda.quant_check(
            codes, scales, n, self.host.codec, self.block, faults.view(torch.int32)[:1]
        )  # the low half
        return True

    def _start(self, out: Mirror, n: int) -> tuple[Tensor, Tensor, int]:
        write_header(out.head, self.wire_id, self.host.parameter, n)
        return *self._split(out, n), self.block

    def _split(self, payload: Mirror, n: int) -> tuple[Tensor, Tensor]:
        """Views of codes and scales."""
        blocks = kernels.quant_blocks(n, self.block)
        codes_at = HEADER_BYTES + 4 * blocks
        codes = payload.body[codes_at : codes_at + kernels.quant_bytes(self.host.codec, n)]
        return codes, _floats(payload, HEADER_BYTES, blocks)

    def _split_all(self, payloads: Sequence[Mirror], n: int) -> tuple[list[Tensor], list[Tensor]]:
        parts = [self._split(payload, n) for payload in payloads]
        return [codes for codes, _ in parts], [scales for _, scales in parts]


class GpuTopK(OnGpu[TopK]):
    """Indices and values of the largest."""

    head: int = BODY_AT

    def encode_into(self, x: Tensor, out: Mirror) -> int:
        """Select from x, behind a header and the number of entries."""
        count = self.host.count(len(x))
        write_header(out.head, self.wire_id, 0, len(x))
        out.head[HEADER_BYTES:BODY_AT].view("<u8")[:] = (count, 0)
        cuda.topk_select(x, count, *self._split(out, count), bad=self.refused)
        return self.max_bytes(len(x))

    def accumulate(self, payloads: Sequence[Mirror], weights: Sequence[float], out: Tensor) -> None:
        """One sweep over ``out``."""
        parts = [self._split(payload, self.host.count(len(out))) for payload in payloads]
        cuda.sparse_accumulate([indices for indices, _ in parts], [v for _, v in parts], weights, out)

    def look(self, head: Bytes, n: int) -> None:
        """See ``OnGpu.look``."""
        count = self.host._read_count(head, n)
        if count != self.host.count(n):
            raise FrameError(f"topk payload has k={count} entries, this rank's have {self.host.count(n)}")

    def _count_faults(self, payload: Mirror, n: int, faults: Tensor) -> bool:
        indices, values = self._split(payload, self.host.count(n))
        cuda.sparse_check(indices, n, faults)
        cuda.count_nonfinite(values, faults)
        return True

    def _split(self, payload: Mirror, count: int) -> tuple[Tensor, Tensor]:
        """Views of indices and values."""
        import torch

        values_at = BODY_AT + 4 * count
        return payload.body[BODY_AT:values_at].view(torch.int32), _floats(payload, values_at, count)


_KINDS: tuple[tuple[type[Compressor], type[OnGpu[Any]]], ...] = (
    (Uncompressed, GpuPlain),
    (HalfPrecision, GpuHalf),
    (Quantiser, GpuQuantiser),
    (TopK, GpuTopK),
)


def has_gpu_kernels(compressor: Compressor) -> bool:
    """Whether ``on_gpu`` takes it: payloads of a length known before, and CUDA kernels for all it does."""
    return any(isinstance(compressor, kind) for kind, _ in _KINDS)


def on_gpu(compressor: Compressor, refused: Tensor) -> Compressor:
    """The compressor for vectors on a GPU, which mixers take in its place.

    Args:
        compressor: one of those that ``has_gpu_kernels``.
        refused: see ``OnGpu``.
    """
    made = next(gpu for kind, gpu in _KINDS if isinstance(compressor, kind))
    return cast(Compressor, made(compressor, refused))


def _floats(payload: Mirror, start: int, n: int) -> Tensor:
    """A view of n float32 from byte ``start`` on."""
    import torch

    return payload.body[start : start + 4 * n].view(torch.float32)


def _shorts(payload: Mirror, n: int) -> Tensor:
    """A view of n codes behind the header."""
    import torch

    return payload.body[HEADER_BYTES : HEADER_BYTES + 2 * n].view(torch.int16)
