"""Payloads that a GPU writes have the bytes of the CPU's, and what is wrong with others is found there."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress
from pydec.compress.base import compressors
from pydec.compress.gpu import has_gpu_kernels, on_gpu
from pydec.compress.mirror import Mirror
from pydec.errors import FrameError
from pydec.kernels.cuda import _module
from tests.emulated import EmulatedPlace, load_emulated

torch = pytest.importorskip("torch")

SPECS = [
    "none", "bf16", "fp16", "fp8", "fp8:format=e5m2,block=16", "int8", "int8:rounding=stochastic,draw_key=5",
    "int4:block=32", "int2", "sign", "topk:k=5", "topk:fraction=0.1",
]  # fmt: skip
N = 1003

pytestmark = pytest.mark.timeout(120, func_only=True)  # the first test waits for the compiler


@pytest.fixture
def place(monkeypatch):
    """An emulated GPU."""
    monkeypatch.setattr(_module, "_loaded", load_emulated())
    return EmulatedPlace()


def vector(seed):
    return np.random.default_rng(seed).standard_normal(N).astype(np.float32)


def there(place, array):
    tensor = place.zeros(len(array), torch.from_numpy(array[:0]).dtype)
    tensor.copy_(torch.from_numpy(array))
    return tensor


def mirror(place, payload):
    payload = np.frombuffer(payload, np.uint8).copy()
    return Mirror(payload[:64], there(place, payload))


def encoder(place, host):
    return on_gpu(host, place.zeros(1, torch.int64))


def test_the_compressors_that_a_gpu_has_are_these():
    found = {name for name in compressors if has_gpu_kernels(compress.make(name))}
    assert found == {"none", "bf16", "fp16", "fp8", "int8", "int4", "int2", "sign", "topk"}


@pytest.mark.parametrize("spec", SPECS)
def test_payloads_and_sums_are_those_of_the_cpu(place, spec):
    host, x = compress.make(spec), vector(1)
    ours = encoder(place, host)
    assert (ours.wire_id, ours.block, ours.lossless, ours.delta(N)) == (
        host.wire_id, host.block, host.lossless, host.delta(N),
    )  # fmt: skip
    room = Mirror(np.zeros(64, np.uint8), place.zeros(host.max_bytes(N), torch.uint8))
    length = ours.encode_into(there(place, x), room)
    written = room.fetch()[:length]
    written[: ours.head] = room.head[: ours.head]  # which is copied there by who sends it
    payloads = [host.encode(x), host.encode(vector(2))]
    assert written.tobytes() == payloads[0]
    assert not int(ours.refused)
    mirrors = [mirror(place, payload) for payload in payloads]
    faults = place.zeros(1, torch.int64)
    assert ours.inspect(mirrors[1], N, faults) is not host.lossless
    assert not int(faults)
    ours.check(mirrors[1], N)
    out, expected = there(place, vector(3)), vector(3)
    ours.accumulate_own(mirrors[0], -0.5, mirrors[1:], [0.25], out)
    host.accumulate(payloads, [-0.5, 0.25], expected)
    np.testing.assert_array_equal(out.numpy(), expected)
    assert float(ours.sqdist(mirrors[0], out)) == host.sqdist(payloads[0], expected)
    assert (ours.views(mirrors, N) is not None) is host.lossless
    decoded = host.decode(payloads[1], np.empty(N, np.float32))
    np.testing.assert_array_equal(ours.decode(mirrors[1], there(place, vector(4))).numpy(), decoded)
    damaged = bytearray(payloads[0])
    damaged[0] = 99
    good, squared = ours.measure([mirrors[1], mirror(place, bytes(damaged)), mirrors[0]], out)
    assert good.tolist() == [True, False, True]
    assert [squared[0], squared[2]] == [host.sqdist(payload, expected) for payload in payloads[::-1]]


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec != "none"])
def test_what_has_no_code_is_counted(place, spec):
    host, x = compress.make(spec), vector(1)
    x[500] = np.inf
    ours = encoder(place, host)
    ours.encode_into(
        there(place, x), Mirror(np.zeros(64, np.uint8), place.zeros(host.max_bytes(N), torch.uint8))
    )
    assert int(ours.refused) == 1
    assert "1 of its elements or blocks hold NaN" in str(ours.refusal(1))


@pytest.mark.parametrize("spec", SPECS)
def test_wrong_payloads_are_found(place, spec):
    """Whatever the CPU refuses, of one byte changed at a time, ``inspect`` or the counter does."""
    host = compress.make(spec)
    ours, payload = encoder(place, host), bytearray(host.encode(vector(1)))
    for at in (0, 1, 4, 8, 16, 19, 24, 33, 47, len(payload) - 1):
        for value in (0x7F, 0xFF):
            damaged = payload.copy()
            damaged[at] = value
            try:
                host.check(damaged, N)
                parameters_differ = at == 4  # of the header: the CPU takes another block
            except FrameError:
                assert refused(place, ours, damaged), (at, value)
                continue
            assert refused(place, ours, damaged) in (False, parameters_differ), (at, value)
    assert refused(place, ours, payload[:-1])
    assert refused(place, ours, payload + b"\0")


def refused(place, ours, payload):
    faults = place.zeros(1, torch.int64)
    try:
        ours.inspect(mirror(place, bytes(payload)), N, faults)
    except FrameError:
        return True
    return bool(int(faults))
