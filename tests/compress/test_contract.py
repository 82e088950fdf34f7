"""What every registered compressor promises."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress, kernels
from pydec.compress import compressors
from pydec.errors import ConfigError, FrameError

SPECS = [
    *compressors,
    "auto:send=packed",
    "auto:lossy=bf16,send=packed",
    "block-topk:k=3,block=64",
    "demo:k=200,tile=16,values=int8",
    "demo:tile=32,values=bf16",
    "fp8:format=e5m2,block=16",
    "int2:block=64",
    "int4:block=32",
    "int8:block=16",
    "powersgd:rank=2,columns=7,iterations=2,draw_key=7",
    "powersgd:rank=8",
    "randk:fraction=0.2,chunk=16,unbiased=true,draw_key=7",
    "randk:k=5",
    "sign:block=128",
    "threshold:fraction=0.2",
    "topk:k=5",
    "topk-int8:fraction=0.3,scale_block=16",
    "topk:fraction=1",
]
# Their delta holds on average over the keys, and what they decoded is drawn from elsewhere again.
DRAWN = {spec for spec in SPECS if spec.startswith(("powersgd", "randk"))}
# What they decode has other coefficients again: those of the last tile's filling, and rounding of small ones.
TRANSFORMED = {spec for spec in SPECS if spec.startswith("demo")}
# Switched off, auto sends what it is given.
LOSSY = [spec for spec in SPECS if not compress.make(spec).lossless and spec != "auto"]
BLOCKWISE = [spec for spec in SPECS if compress.make(spec).block]
SIZES = [0, 1, 2, 15, 17, 255, 256, 257, 1000, 100_003]


def vector(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([n, seed]).standard_normal(n).astype(np.float32)


def decoded(compressor: compress.Compressor, payload: compress.Payload, n: int) -> np.ndarray:
    return compressor.decode(payload, np.full(n, np.nan, np.float32))


def unaligned(payload: bytes, offset: int) -> np.ndarray:
    place = np.zeros(len(payload) + offset, np.uint8)[offset:]
    place[:] = np.frombuffer(payload, np.uint8)
    return place


def test_wire_ids_are_unique_and_never_change():
    ids = {name: compress.make(name).wire_id for name in compressors}
    assert ids == {
        "none": 1,
        "topk": 2,
        "int8": 3,
        "bf16": 4,
        "fp16": 5,
        "fp8": 6,
        "int4": 7,
        "int2": 8,
        "sign": 9,
        "block-topk": 10,
        "threshold": 11,
        "randk": 12,
        "topk-int8": 13,
        "powersgd": 14,
        "demo": 15,
        "auto": 16,
    }


@pytest.mark.parametrize("spec", sorted(set(SPECS) - DRAWN))
@pytest.mark.parametrize("n", SIZES)
def test_is_a_contraction(spec, n):
    compressor = compress.make(spec)
    assert 0 < compressor.delta(n) <= 1
    rng = np.random.default_rng(n)
    for x in (
        vector(n),
        np.clip(rng.standard_cauchy(n), -6e4, 6e4).astype(np.float32),  # the range of fp16
        rng.integers(-3, 4, n).astype(np.float32),
    ):
        y = decoded(compressor, compressor.encode(x), n)
        error, size = np.sum((x - y) ** 2, dtype=np.float64), np.sum(x**2, dtype=np.float64)
        assert error <= (1 - compressor.delta(n)) * size * (1 + 1e-5) + 1e-12 * size


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", SIZES)
def test_payload_fits_and_starts_with_the_wire_id(spec, n):
    compressor = compress.make(spec)
    out = np.full(compressor.max_bytes(n) + 3, 0xAB, np.uint8)
    length = compressor.encode_into(vector(n), out)
    assert length <= compressor.max_bytes(n)
    assert out[0] == compressor.wire_id
    assert np.all(out[length:] == 0xAB)
    assert compressor.encode(vector(n)) == out[:length].tobytes()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [0, 1, 257, 1000])
@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_payloads_decode_at_any_alignment_and_in_any_container(spec, n, offset):
    compressor = compress.make(spec)
    payload = compressor.encode(vector(n))
    expected = decoded(compressor, payload, n)
    place = np.zeros(compressor.max_bytes(n) + offset, np.uint8)[offset:]
    place = place[: compressor.encode_into(vector(n), place)]
    assert place.tobytes() == payload
    for container in (place, memoryview(place), place.tobytes(), bytearray(place.tobytes())):
        assert decoded(compressor, container, n).tobytes() == expected.tobytes()


@pytest.mark.parametrize("spec", sorted(set(SPECS) - DRAWN - TRANSFORMED))
def test_decoding_and_encoding_again_gives_the_same_values(spec):
    compressor = compress.make(spec)
    once = decoded(compressor, compressor.encode(vector(1000)), 1000)
    np.testing.assert_allclose(decoded(compressor, compressor.encode(once), 1000), once, rtol=1e-6)
    assert not compressor.lossless or np.array_equal(once, vector(1000))


@pytest.mark.parametrize("spec", BLOCKWISE)
def test_pieces_cut_at_blocks_decode_like_the_whole(spec):
    compressor = compress.make(spec)
    x = vector(20 * compressor.block + 5)
    whole = decoded(compressor, compressor.encode(x), x.size)
    cut = 7 * compressor.block
    pieces = [decoded(compressor, compressor.encode(part), part.size) for part in (x[:cut], x[cut:])]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [0, 1, 300, 5000])
@pytest.mark.parametrize("m", [0, 1, 3])
def test_accumulate_adds_decoded_vectors_in_order(spec, n, m):
    compressor = compress.make(spec)
    payloads = [unaligned(compressor.encode(vector(n, seed)), seed) for seed in range(m)]
    weights = [0.3, -0.7, 1.1][:m]
    expected = out = vector(n, 99)
    out = expected.copy()
    for payload, weight in zip(payloads, weights, strict=True):
        expected = expected + np.float32(weight) * decoded(compressor, payload, n)
    compressor.accumulate(payloads, weights, out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [0, 1, 300, 70_003])
def test_sqdist_is_that_of_the_decoded_vector(spec, n):
    compressor = compress.make(spec)
    payload, x = unaligned(compressor.encode(vector(n)), 1), vector(n, 1)
    assert compressor.sqdist(payload, x) == kernels.sqdist(decoded(compressor, payload, n), x)
    with pytest.raises(FrameError):
        compressor.sqdist(payload[:-1], x)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [0, 1, 300, 70_003])
def test_sqdists_are_those_of_the_decoded_vectors_where_a_compressor_has_them(spec, n):
    compressor = compress.make(spec)
    own, *payloads = [unaligned(compressor.encode(vector(n, seed)), 1) for seed in range(3)]
    found = compressor.sqdists(own, payloads, n)
    assert (found is not None) == (spec.startswith("int") or spec == "auto:send=packed")
    if found is not None:
        x = decoded(compressor, own, n)
        expected = [kernels.sqdist(decoded(compressor, payload, n), x) for payload in payloads]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        with pytest.raises(FrameError):
            compressor.sqdists(own, [payloads[0], payloads[1][:-1]], n)


@pytest.mark.parametrize("spec", SPECS)
def test_accumulate_refuses_before_it_writes(spec):
    compressor = compress.make(spec)
    good, bad = compressor.encode(vector(50)), compressor.encode(vector(50))[:-1]
    out = vector(50, 1)
    with pytest.raises(FrameError):
        compressor.accumulate([good, bad], [1.0, 1.0], out)
    with pytest.raises(ValueError, match="got 1 weights for 2 payloads"):
        compressor.accumulate([good, good], [1.0], out)
    for weight in (np.nan, np.inf, 1e39):
        with pytest.raises(ValueError, match=r"weights\[1\] must be a finite float32 number"):
            compressor.accumulate([good, good], [1.0, weight], out)
    np.testing.assert_array_equal(out, vector(50, 1))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [0, 1, 300, 5000])
def test_feedback_leaves_in_the_residual_what_was_not_sent(spec, n):
    compressor = compress.make(spec)
    x, before = vector(n), vector(n, 1)
    residual = before.copy()
    out = np.empty(compressor.max_bytes(n), np.uint8)
    length = compressor.encode_feedback_into(x, residual, out)
    assert out[:length].tobytes() == compressor.encode(x + before)
    np.testing.assert_array_equal(residual, (x + before) - decoded(compressor, out[:length], n))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("n", [0, 1, 300])
def test_from_wire_finds_the_compressor_and_its_parameters(spec, n):
    compressor = compress.make(spec)
    payload = compressor.encode(vector(n))
    found = compress.from_wire(payload)
    assert type(found) is type(compressor)
    np.testing.assert_array_equal(decoded(found, payload, n), decoded(compressor, payload, n))
    assert found.encode(vector(n)) == payload


@pytest.mark.parametrize("payload", [b"", b"\x00" * 40, b"\xff" * 40, b"\x01", b"\x02" * 16])
def test_from_wire_refuses_what_is_no_payload(payload):
    with pytest.raises(FrameError):
        compress.from_wire(payload)


def test_payloads_of_one_compressor_are_refused_by_another():
    for ours in SPECS:
        for theirs in SPECS:
            a, b = compress.make(ours), compress.make(theirs)
            if a.wire_id != b.wire_id:
                with pytest.raises(FrameError, match=rf"has wire id {b.wire_id}, but [\w-]+ has {a.wire_id}"):
                    a.decode(b.encode(vector(20)), np.empty(20, np.float32))


@pytest.mark.parametrize("spec", SPECS)
def test_encoders_name_what_does_not_fit(spec):
    compressor = compress.make(spec)
    out = np.empty(4096, np.uint8)
    with pytest.raises(
        TypeError, match=r"x must be a float32 array, got float64; use np.asarray\(x, np.float32\)"
    ):
        compressor.encode_into(np.zeros(4), out)  # type: ignore[arg-type]  # the error is the point
    with pytest.raises(TypeError, match="got list"):
        compressor.encode([1.0])  # type: ignore[arg-type]  # the error is the point
    with pytest.raises(ValueError, match="one-dimensional and contiguous"):
        compressor.encode(vector(20)[::2])
    with pytest.raises(
        ValueError, match=r"out has 3 bytes, a payload of n=20 elements needs \d+; see max_bytes"
    ):
        compressor.encode_into(vector(20), out[:3])
    with pytest.raises(TypeError, match="contiguous uint8"):
        compressor.encode_into(vector(20), out.view(np.int8))
    out.setflags(write=False)
    with pytest.raises(ValueError, match="out is read-only"):
        compressor.encode_into(vector(20), out)
    with pytest.raises(ValueError, match="residual must have 20 elements, got 19"):
        compressor.encode_feedback_into(vector(20), vector(19), np.empty(4096, np.uint8))


@pytest.mark.parametrize("spec", SPECS)
def test_decoders_name_what_is_not_bytes_or_no_vector(spec):
    compressor = compress.make(spec)
    payload = compressor.encode(vector(8))
    with pytest.raises(TypeError, match="contiguous uint8 array"):
        compressor.decode(np.frombuffer(payload, np.int8), np.empty(8, np.float32))
    with pytest.raises(TypeError, match="contiguous bytes, got str"):
        compressor.decode("text", np.empty(8, np.float32))  # type: ignore[arg-type]  # the error is the point
    with pytest.raises(TypeError, match="contiguous bytes, got memoryview"):
        compressor.decode(memoryview(payload)[::2], np.empty(8, np.float32))
    with pytest.raises(TypeError, match="out must be a float32 array, got float64"):
        compressor.decode(payload, np.empty(8))  # type: ignore[arg-type]  # the error is the point


@pytest.mark.parametrize("spec", LOSSY)
def test_a_failed_feedback_keeps_the_residual(spec):
    compressor = compress.make(spec)
    x, before = vector(40), vector(40, 1)
    x[[3, 9]] = np.nan, -np.inf
    residual = before.copy()
    with pytest.raises(ValueError, match="cannot encode 2 NaN or infinite of 40 elements; skip the step"):
        compressor.encode_feedback_into(x, residual, np.empty(compressor.max_bytes(40), np.uint8))
    expected = before.copy()
    expected[[3, 9]] = 0.0
    np.testing.assert_allclose(residual, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("topk:fraction=0", r"fraction must be in \(0, 1\], got 0.0"),
        ("topk:fraction=1.5", r"fraction must be in \(0, 1\], got 1.5"),
        ("topk:fraction=nan", r"fraction must be in \(0, 1\], got nan"),
        ("topk:k=0", "k must be at least 1, got 0"),
        ("topk:k=3,fraction=0.5", "exclude each other"),
        ("block-topk:k=3,fraction=0.5", "exclude each other"),
        ("block-topk:block=100", r"block must be a multiple of 64 in 64..65536, got 100"),
        ("randk:chunk=0", r"chunk must be in 1..65536, got 0"),
        ("randk:draw_key=-1", "draw_key must be in"),
        ("demo:tile=8", "tile must be one of 16, 32, 64, got 8"),
        ("demo:k=0", r"k must be in 1..4096, got 0"),
        ("demo:tile=16,k=257", r"k must be in 1..256, got 257"),
        ("demo:values=fp4", "values must be one of float32, bf16, int8, got 'fp4'"),
        ("powersgd:rank=9", r"rank must be in 1..8, got 9"),
        ("powersgd:columns=0", "columns must be at least 1, got 0"),
        ("powersgd:iterations=0", r"iterations must be in 1..16, got 0"),
        ("powersgd:draw_key=-1", "draw_key must be in"),
        ("threshold:fraction=2", r"fraction must be in \(0, 1\], got 2.0"),
        ("int8:block=0", r"block must be a multiple of 16 in 16..65536, got 0"),
        ("int8:block=100", "got 100"),
        ("int8:block=131072", "got 131072"),
        ("int8:blocks=16", "int8 has no option 'blocks'; its options: block"),
        ("none:x=1", "none has no option 'x'; its options: none"),
        ("gzip", "unknown compressor 'gzip'; known: .*int8, none, .*topk"),
    ],
)
def test_bad_specifications_name_the_option_and_its_range(spec, message):
    with pytest.raises(ConfigError, match=message):
        compress.make(spec)
