// CUDA launchers. Each takes a stream, returns at once, allocates nothing, handles n = 0, throws nothing, can
// be captured in a graph, and gives the bits of its CPU kernel: both are built on pydec/element*.h, in the
// same order, without contraction. Only the payload of a NaN that arithmetic makes is the processor's own.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "pydec/block_topk.h"
#include "pydec/cast.h"
#include "pydec/choco.h"
#include "pydec/demo.h"
#include "pydec/powersgd.h"
#include "pydec/quant.h"
#include "pydec/randk.h"
#include "pydec/threshold.h"

namespace pydec::cuda {

/// Contract of every launcher: arrays are device memory, aligned to their element and valid for the stated
/// length until the stream has passed; lists of spans, pointers and weights are host arrays, read before the
/// call returns. Overlap is as in the CPU contract. Vectors of a list are handled by one launch for every few
/// dozen. The result is the launch's error; cudaErrorInvalidValue if an argument is out of range.

/// A device counter, to which a launch adds; null where nobody counts.
using Count = unsigned long long;

/// Vectors that one sum reads.
constexpr std::size_t kMaxMix = 64;

/// One vector of a mix: m inputs of n elements; gradient and state for the updates only.
struct MixSpan {
  const float* const* x;
  float* out;
  std::size_t n;
  const float* gradient;
  float* state;  ///< push-sum: ratio; tracking: previous; momentum: velocity
};

/// As MixKernels::mix_f32, for 1 <= m <= kMaxMix and every span.
cudaError_t mix_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                    cudaStream_t stream) noexcept;
/// As UpdateKernels, with the same limits.
cudaError_t push_sum_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                         float divisor, cudaStream_t stream) noexcept;
cudaError_t tracking_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                         cudaStream_t stream) noexcept;
cudaError_t momentum_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                         float momentum, float rate, cudaStream_t stream) noexcept;
/// As DistanceKernels::add_differences_f32 for m <= kMaxMix. Factors are host floats, or with `on_device` a
/// device array, of which a NaN leaves its vector out.
cudaError_t add_differences_f32(const float* const* x, const float* factor, bool on_device, std::size_t m,
                                const float* y, float* out, std::size_t n, cudaStream_t stream) noexcept;
/// factor[k] = float(weight[k] * min(1, radius[k] / sqrt(sqdist[k]))), NaN where sqdist[k] is NaN or
/// infinite; sqdist and factor are device arrays, weight and radius host arrays of m <= kMaxMix.
cudaError_t clip_factors(const double* sqdist, const double* weight, const double* radius, std::size_t m,
                         float* factor, cudaStream_t stream) noexcept;

struct CastSpan {
  const float* x;
  float* residual;  ///< null: no feedback
  std::size_t n;
  std::uint16_t* codes;
};
struct HalfSpan {
  const std::uint16_t* const* codes;  ///< one for each message
  float* out;
  std::size_t n;
};
/// As CastKernels. `bad` counts codes that are infinite or NaN.
cudaError_t cast_encode_f32(Half half, const CastSpan* spans, std::size_t count, Count* bad,
                            cudaStream_t stream) noexcept;
cudaError_t cast_decode_f32(Half half, const HalfSpan* spans, std::size_t count,
                            cudaStream_t stream) noexcept;
cudaError_t cast_accumulate_f32(Half half, const HalfSpan* spans, std::size_t count, const float* w,
                                std::size_t m, cudaStream_t stream) noexcept;
cudaError_t cast_count_nonfinite(Half half, const std::uint16_t* codes, std::size_t n, Count* bad,
                                 cudaStream_t stream) noexcept;

struct EncodeSpan {
  const float* x;
  float* residual;  ///< null: no feedback
  std::size_t n;
  std::uint8_t* codes;
  float* scales;
  std::uint64_t first;  ///< Draw::first
};
struct DecodeSpan {
  const std::uint8_t* const* codes;  ///< one for each message
  const float* const* scales;        ///< one for each message
  float* out;
  std::size_t n;
};
struct DifferenceSpan {
  const float* x;
  const float* y;
  std::size_t n;
  std::uint8_t* codes;
  float* scales;
  std::uint64_t first;  ///< Draw::first
};
/// As QuantEncoders; block is a multiple of the codec's group. With a key, rounds at random as Draw{*key,
/// span.first}. `bad` counts blocks with the scale NaN.
cudaError_t quant_encode_f32(Codec codec, const EncodeSpan* spans, std::size_t count, std::size_t block,
                             const std::uint64_t* key, Count* bad, cudaStream_t stream) noexcept;
cudaError_t quant_encode_difference_f32(Codec codec, const DifferenceSpan* spans, std::size_t count,
                                        std::size_t block, const std::uint64_t* key, Count* bad,
                                        cudaStream_t stream) noexcept;
/// As QuantDecoders.
cudaError_t quant_decode_f32(Codec codec, const DecodeSpan* spans, std::size_t count, std::size_t block,
                             cudaStream_t stream) noexcept;
cudaError_t quant_accumulate_f32(Codec codec, const DecodeSpan* spans, std::size_t count, std::size_t block,
                                 const float* w, std::size_t m, cudaStream_t stream) noexcept;
/// *out = the distance; work holds sum_work(n) doubles.
cudaError_t quant_sqdist_f32(Codec codec, const std::uint8_t* codes, const float* scales, const float* x,
                             std::size_t n, std::size_t block, double* out, double* work,
                             cudaStream_t stream) noexcept;
/// *faults |= the message's faults.
cudaError_t quant_check(Codec codec, const std::uint8_t* codes, const float* scales, std::size_t n,
                        std::size_t block, unsigned* faults, cudaStream_t stream) noexcept;

struct ChocoSpan {
  float* x;
  float* estimate;
  float* mixed;
  const float* gradient;  ///< null: no local step
  std::size_t n;
  std::uint8_t* codes;
  float* scales;
  std::uint64_t first;  ///< Draw::first
};
struct AbsorbSpan {
  float* x;
  float* estimate;
  float* mixed;
  std::size_t n;
  const std::uint8_t* const* codes;  ///< one for each message, the own one first
  const float* const* scales;        ///< one for each message
};
/// As ChocoKernels; block is a multiple of the codec's group.
cudaError_t choco_step_f32(Codec codec, const ChocoSpan* spans, std::size_t count,
                           const ChocoFactors& factors, std::size_t block, const std::uint64_t* key,
                           Count* bad, cudaStream_t stream) noexcept;
cudaError_t choco_absorb_f32(Codec codec, const AbsorbSpan* spans, std::size_t count, float gamma,
                             std::size_t block, const float* w, std::size_t m, cudaStream_t stream) noexcept;

/// Doubles of workspace for one sum over n elements.
std::size_t sum_work(std::size_t n) noexcept;
/// As ReduceKernels: device results. `bad`, unless null, counts x's NaN and infinite elements in the same
/// pass.
cudaError_t sqnorm_f32(const float* x, std::size_t n, double* out, Count* bad, double* work,
                       cudaStream_t stream) noexcept;
/// m <= kMaxMix; work holds m * sum_work(n) doubles.
cudaError_t sqdists_f32(const float* const* x, std::size_t m, const float* y, std::size_t n, double* out,
                        double* work, cudaStream_t stream) noexcept;
cudaError_t count_nonfinite_f32(const float* x, std::size_t n, Count* bad, cudaStream_t stream) noexcept;

/// Doubles of workspace for a Gram matrix of n vectors of d elements.
std::size_t gram_work(std::size_t n, std::size_t d) noexcept;
/// As DistanceKernels::gram_f32 for n <= 256.
cudaError_t gram_f32(const float* const* x, std::size_t n, const float* c, std::size_t d, double* gram,
                     double* work, cudaStream_t stream) noexcept;

/// As RobustKernels.
cudaError_t median_f32(const float* const* x, std::size_t n, float* out, std::size_t d,
                       cudaStream_t stream) noexcept;
cudaError_t trimmed_mean_f32(const float* const* x, std::size_t n, std::size_t f, float* out, std::size_t d,
                             cudaStream_t stream) noexcept;
cudaError_t mean_around_median_f32(const float* const* x, std::size_t n, std::size_t f, float* out,
                                   std::size_t d, cudaStream_t stream) noexcept;

/// Bytes of workspace, aligned to 16, for a selection of k of n elements; for a threshold's plan.
std::size_t topk_work(std::size_t n, std::size_t k) noexcept;
std::size_t threshold_work(std::size_t n, const ThresholdPlan& plan) noexcept;
/// As TopkKernels::select_f32, n < 2^32. `bad` counts a's NaN and infinite elements.
cudaError_t topk_select_f32(const float* x, float* residual, std::size_t n, std::size_t k,
                            std::uint32_t* indices, float* values, Count* bad, void* work,
                            cudaStream_t stream) noexcept;
/// As ThresholdKernels::select_f32; *found becomes how many are selected; indices and values hold plan.most.
cudaError_t threshold_select_f32(const float* x, float* residual, std::size_t n, const ThresholdPlan& plan,
                                 std::uint32_t* indices, float* values, Count* found, Count* bad, void* work,
                                 cudaStream_t stream) noexcept;
/// *faults += the entries that are not below n or not above the entry before.
cudaError_t scatter_check(const std::uint32_t* indices, std::size_t k, std::size_t n, Count* faults,
                          cudaStream_t stream) noexcept;
/// As TopkKernels::scatter_f32 for ascending indices; nothing if *faults is not 0 (null: never).
cudaError_t scatter_f32(const std::uint32_t* indices, const float* values, std::size_t k, float weight,
                        float* out, const Count* faults, cudaStream_t stream) noexcept;
/// out[0..n) = 0, and the values at their ascending indices; nothing if *faults is not 0 (null: never).
cudaError_t sparse_decode_f32(const std::uint32_t* indices, const float* values, std::size_t k, float* out,
                              std::size_t n, const Count* faults, cudaStream_t stream) noexcept;

/// As BlockTopkKernels. `bad` counts a's NaN and infinite elements.
cudaError_t block_topk_select_f32(const float* x, float* residual, const BlockTopkShape& shape,
                                  std::uint16_t* indices, float* values, Count* bad,
                                  cudaStream_t stream) noexcept;
/// *first becomes at most the number of the first block whose indices do not increase or leave it.
cudaError_t block_topk_check(const std::uint16_t* indices, const BlockTopkShape& shape, Count* first,
                             cudaStream_t stream) noexcept;
/// Nothing happens in these two if *first is below the number of blocks (null: never).
cudaError_t block_topk_decode_f32(const std::uint16_t* indices, const float* values,
                                  const BlockTopkShape& shape, float* out, const Count* first,
                                  cudaStream_t stream) noexcept;
cudaError_t block_topk_accumulate_f32(const std::uint16_t* const* indices, const float* const* values,
                                      const float* w, std::size_t m, const BlockTopkShape& shape, float* out,
                                      const Count* first, cudaStream_t stream) noexcept;

/// Numbers of workspace for the key of n elements.
std::size_t randk_work(std::size_t n) noexcept;
/// As RandkKernels; *key is a device number. A digest is a chain of dependent steps for each of 128 lanes,
/// 512 long; it is the number of digests that fills the GPU.
cudaError_t randk_key_f32(const float* x, float* residual, std::size_t n, std::uint64_t seed, Count* key,
                          Count* bad, Count* work, cudaStream_t stream) noexcept;
/// `key`, unless null, is a device number and stands for shape.key.
cudaError_t randk_gather_f32(const float* x, const RandkShape& shape, const Count* key, bool scaled,
                             float* values, cudaStream_t stream) noexcept;
cudaError_t randk_scatter_f32(const float* values, const RandkShape& shape, const Count* key, float weight,
                              float* out, cudaStream_t stream) noexcept;
struct RandkTerm {
  const float* values;
  RandkShape shape;
  const Count* key;  ///< null: the shape's
  float weight;
};
/// One message after the other.
cudaError_t randk_accumulate_f32(const RandkTerm* terms, std::size_t m, float* out,
                                 cudaStream_t stream) noexcept;

/// Bytes of workspace, aligned to 16, for a message of k indices or entries; for encoding k of n.
std::size_t gaps_work(std::size_t k) noexcept;
std::size_t topk_int8_work(std::size_t n, std::size_t k) noexcept;
/// As GapKernels::pack, for indices below n; out has room for gap_groups(k) + gap_bound(n, k) bytes.
/// results[0] becomes the bytes written, [1] the number of indices that do not fit or increase; then nothing
/// is packed, and [0] means nothing. There are three results.
cudaError_t gaps_pack(const std::uint32_t* indices, std::size_t k, std::size_t n, std::uint8_t* out,
                      Count* results, void* work, cudaStream_t stream) noexcept;
/// As GapKernels::check and unpack_group, on widths and groups of `bytes` bytes: *faults |= the first fault.
/// The indices are unchanged if *faults is not 0.
cudaError_t gaps_unpack(const std::uint8_t* data, std::size_t bytes, std::size_t n, std::uint32_t* indices,
                        std::size_t k, Count* faults, void* work, cudaStream_t stream) noexcept;
/// As TopkInt8Kernels. results[0] becomes the length of the message, [1] the NaN and infinite elements of a,
/// [2] the blocks that are too large; the message means nothing if [1] or [2] is not 0. body is aligned to 4.
cudaError_t topk_int8_encode_f32(const float* x, float* residual, std::size_t n, std::size_t k,
                                 std::size_t block, std::uint8_t* body, Count* results, void* work,
                                 cudaStream_t stream) noexcept;
/// A message of k entries, with gaps_work(k) bytes of workspace; body is aligned to 4.
struct TopkInt8Source {
  const std::uint8_t* body;
  std::size_t bytes;
  std::size_t k;
  std::size_t block;
  void* work;
};
/// *faults |= the message's faults; out is unchanged if there are any.
cudaError_t topk_int8_decode_f32(const TopkInt8Source& source, float* out, std::size_t n, Count* faults,
                                 cudaStream_t stream) noexcept;
/// faults[i] |= those of message i. verdict[0] becomes the first message with faults, or m, and [1] these;
/// out is unchanged if there are any.
cudaError_t topk_int8_accumulate_f32(const TopkInt8Source* sources, const float* w, std::size_t m, float* out,
                                     std::size_t n, Count* faults, Count* verdict,
                                     cudaStream_t stream) noexcept;

/// Doubles of workspace for an iteration.
std::size_t powersgd_work(const PowersgdShape& shape) noexcept;
/// As PowersgdKernels; key is a device number of workspace.
cudaError_t powersgd_start_f32(const float* x, const float* residual, std::size_t n, std::uint64_t seed,
                               std::size_t count, float* start, Count* key, cudaStream_t stream) noexcept;
/// `bad` counts a's NaN and infinite elements; if there are any, the factors mean nothing.
cudaError_t powersgd_iterate_f32(const float* x, float* residual, const PowersgdShape& shape, float* left,
                                 float* right, Count* bad, double* work, cudaStream_t stream) noexcept;
cudaError_t powersgd_decode_f32(const PowersgdMessage& message, std::size_t n, std::size_t columns,
                                float* out, cudaStream_t stream) noexcept;
cudaError_t powersgd_accumulate_f32(const PowersgdMessage* messages, std::size_t m, std::size_t n,
                                    std::size_t columns, float* out, cudaStream_t stream) noexcept;

/// As DemoKernels. bad[0] counts a's NaN and infinite elements, bad[1] the tiles that are too large.
cudaError_t demo_encode_f32(const float* x, float* residual, float beta, const DemoShape& shape,
                            std::uint8_t* records, Count* bad, cudaStream_t stream) noexcept;
/// *first becomes at most the number of the first tile whose record is none.
cudaError_t demo_check(const std::uint8_t* records, const DemoShape& shape, Count* first,
                       cudaStream_t stream) noexcept;
/// Nothing happens in these two if *first is below the number of tiles (null: never).
cudaError_t demo_decode_f32(const std::uint8_t* records, const DemoShape& shape, float* out,
                            const Count* first, cudaStream_t stream) noexcept;
cudaError_t demo_accumulate_f32(const std::uint8_t* const* records, const float* w, std::size_t m,
                                const DemoShape& shape, float* out, const Count* first,
                                cudaStream_t stream) noexcept;

}  // namespace pydec::cuda
