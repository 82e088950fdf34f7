"""The optional CUDA module: its checks need no device, its bits are those of the CPU kernels."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

cuda = pytest.importorskip("pydec._native_cuda", reason="built without CUDA")


def devices():
    try:
        return cuda.device_count()
    except RuntimeError:
        return 0


def test_nothing_to_do_needs_no_device():
    cuda.mix_f32([1], [1.0], 1, 0, 0)
    cuda.int8_encode_f32(1, 0, 256, 1, 1, 0, 0)
    cuda.int8_decode_f32(1, 1, 0, 256, 1, 0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"1\.\.64 vectors with a weight each, got 0 vectors and 0 weights"):
        cuda.mix_f32([], [], 1, 0, 0)
    with pytest.raises(ValueError, match="got 65 vectors"):
        cuda.mix_f32([1] * 65, [1.0] * 65, 1, 0, 0)
    with pytest.raises(RuntimeError, match="int8_decode_f32: invalid argument"):
        cuda.int8_decode_f32(1, 1, 10, 0, 1, 0)


@pytest.mark.skipif(devices() == 0, reason="no CUDA device")
@pytest.mark.parametrize("n", [1, 255, 256, 257, 300_001])
def test_gives_the_bits_of_the_cpu(n):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA to hold the arrays")
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((3, n)) * 10.0 ** rng.uniform(-42, 30, n)).astype(np.float32)
    x[0, n // 2] = np.nan
    on_device = [torch.from_numpy(v).cuda() for v in x]
    stream = torch.cuda.current_stream().cuda_stream
    out = torch.empty(n, device="cuda")
    cuda.mix_f32([v.data_ptr() for v in on_device[1:]], [0.3, 0.7], out.data_ptr(), n, stream)
    assert out.cpu().numpy().tobytes() == kernels.mix(list(x[1:]), [0.3, 0.7]).tobytes()

    blocks = kernels.quant_blocks(n)
    codes, scales = np.empty(n, np.int8), np.empty(blocks, np.float32)
    their_codes = torch.empty(n, dtype=torch.int8, device="cuda")
    their_scales, bad = torch.empty(blocks, device="cuda"), torch.zeros(1, dtype=torch.int32, device="cuda")
    for v, mine in zip(on_device, x, strict=True):
        expected_bad = kernels.quant_encode(mine, codes.view(np.uint8), scales, "int8", 256)
        bad.zero_()
        cuda.int8_encode_f32(
            v.data_ptr(), n, 256, their_codes.data_ptr(), their_scales.data_ptr(), bad.data_ptr(), stream
        )
        assert bad.item() == expected_bad
        assert their_codes.cpu().numpy().tobytes() == codes.tobytes()
        assert their_scales.cpu().numpy().tobytes() == scales.tobytes()
    cuda.int8_decode_f32(their_codes.data_ptr(), their_scales.data_ptr(), n, 256, out.data_ptr(), stream)
    assert (
        out.cpu().numpy().tobytes()
        == kernels.quant_decode(codes.view(np.uint8), scales, np.empty(n, np.float32), "int8", 256).tobytes()
    )
