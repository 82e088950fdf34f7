#include "cuda/count.h"
#include "cuda/grid.h"
#include "pydec/cuda.h"
#include "pydec/element_quant.h"
#include "pydec/powersgd.h"

namespace pydec::cuda {
namespace {

// As on the CPU: the lanes of a sum in float over a row, and of one in double over a direction.
constexpr unsigned kDotLanes = 16;
constexpr unsigned kLanes = 16;
constexpr unsigned kRowsAtOnce = 4;           // that share the loads of the directions
constexpr unsigned kColumns = kWarp;          // of a block of threads in A^T P
constexpr unsigned kProducts = 8 * kThreads;  // of an inner product that wait in shared memory
constexpr unsigned kTileRows = 8;             // of a block of threads in P Q^T
constexpr unsigned kLineElements = 16;        // of a line of the sample
constexpr std::size_t kSampleLines = 1024;    // at least, where there are so many
constexpr double kLeastShare = 0x1p-18;       // of a direction, as csrc/cpu/powersgd.cpp has it

/// The key of the directions: a lane for each element of a line, whose chain is the number of lines.
__global__ void key_kernel(const float* x, const float* residual, std::size_t n, std::uint64_t seed,
                           Count* key) {
  const unsigned j = threadIdx.x;
  const std::size_t lines = n / kLineElements + (n % kLineElements != 0 ? 1 : 0);
  const std::size_t stride = lines / kSampleLines > 1 ? lines / kSampleLines : 1;
  std::uint32_t lane = j;
#pragma unroll 16
  for (std::size_t line = 0; line < lines; line += stride) {
    const std::size_t i = line * kLineElements + j;
    if (j >= kLineElements || i >= n) continue;
    const float a = residual != nullptr ? x[i] + residual[i] : x[i];
    const std::uint32_t h = (lane ^ bits_of(a)) * 0x9e3779b1u;
    lane = h ^ (h >> 15);
  }
  std::uint64_t mixed = draw_seed(seed) ^ n;
  for (unsigned from = 0; from < kLineElements; ++from) {
    mixed = mix64(mixed + __shfl_sync(kFullWarp, lane, from));
  }
  if (j == 0) *key = mixed;
}

__global__ void __launch_bounds__(kThreads) start_kernel(const Count* key, std::size_t count, float* start) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    const auto random = static_cast<std::int32_t>(mix64(*key + (i + 1) * kGolden) >> 40);
    start[i] = static_cast<float>(2 * random + 1 - (1 << 24)) * 0x1p-24f;
  }
}

/// Multiplies each direction by the power of two that brings its largest magnitude to [1, 4).
__global__ void __launch_bounds__(kThreads) scale_kernel(float* directions, std::size_t columns) {
  PYDEC_SHARED(unsigned, shared_largest);
  float* direction = directions + blockIdx.x * columns;
  if (threadIdx.x == 0) shared_largest = 0;
  __syncthreads();
  std::uint32_t largest = 0;
  for (std::size_t i = threadIdx.x; i < columns; i += kThreads) {
    const std::uint32_t size = magnitude_bits(direction[i]);
    largest = size > largest ? size : largest;
  }
  atomicMax(&shared_largest, largest);
  __syncthreads();
  std::uint32_t exponent = shared_largest >> 23;
  exponent = exponent < 1 ? 1 : (exponent > 253 ? 253 : exponent);
  const float factor = float_of((254 - exponent) << 23);
  for (std::size_t i = threadIdx.x; i < columns; i += kThreads) direction[i] *= factor;
}

/// products[j * rows + row] = the row's inner product with direction j. Half a warp has kRowsAtOnce rows, and
/// a thread one lane of their sums. The residual becomes a.
__global__ void __launch_bounds__(kThreads)
    dot_kernel(const float* x, float* residual, const PowersgdShape shape, std::size_t rows,
               const float* right, double* products, Count* bad) {
  const unsigned lane = threadIdx.x % kDotLanes;
  const std::size_t stride = std::size_t{gridDim.x} * (kThreads / kDotLanes) * kRowsAtOnce;
  unsigned found = 0;
  // Both halves of a warp go round equally often, for the shuffles.
  for (std::size_t at = (std::size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp) * 2 * kRowsAtOnce; at < rows;
       at += stride) {
    const std::size_t first = at + threadIdx.x % kWarp / kDotLanes * kRowsAtOnce;
    float sum[kRowsAtOnce][kMaxRank] = {};
    for (std::size_t c = lane; c < shape.columns; c += kDotLanes) {
      float q[kMaxRank];
#pragma unroll
      for (unsigned j = 0; j < kMaxRank; ++j) q[j] = j < shape.rank ? right[j * shape.columns + c] : 0.0f;
#pragma unroll
      for (unsigned i = 0; i < kRowsAtOnce; ++i) {
        const std::size_t place = (first + i) * shape.columns + c;
        if (first + i >= rows || place >= shape.n) continue;
        float a = x[place];
        if (residual != nullptr) {
          a = a + residual[place];
          residual[place] = a;
        }
        found += magnitude_bits(a) >= kInfinityBits ? 1 : 0;
#pragma unroll
        for (unsigned j = 0; j < kMaxRank; ++j) sum[i][j] = sum[i][j] + a * q[j];
      }
    }
#pragma unroll
    for (unsigned i = 0; i < kRowsAtOnce; ++i) {
#pragma unroll
      for (unsigned j = 0; j < kMaxRank; ++j) {
        float total = sum[i][j];
#pragma unroll
        for (unsigned by = kDotLanes / 2; by > 0; by /= 2) {
          total = total + __shfl_down_sync(kFullWarp, total, by);
        }
        if (lane == 0 && first + i < rows && j < shape.rank) products[j * rows + first + i] = total;
      }
    }
  }
  add_count(found, bad);
}

/// sums[j * columns + c] = sum over rows, in order, of a[row][c] * products[j * rows + row]. A warp for each
/// direction, a thread for each column: their elements of a are the same and lie in the first-level cache.
__global__ void __launch_bounds__(kWarp* kMaxRank)
    outer_kernel(const float* a, const PowersgdShape shape, std::size_t rows, const double* products,
                 double* sums) {
  const std::size_t c = std::size_t{blockIdx.x} * kColumns + threadIdx.x % kWarp;
  if (c >= shape.columns) return;
  const unsigned j = threadIdx.x / kWarp;
  const double* factor = products + j * rows;
  const std::size_t there = rows * shape.columns - shape.n > shape.columns - 1 - c ? rows - 1 : rows;
  double sum = 0.0;
#pragma unroll 16
  for (std::size_t row = 0; row < there; ++row) {
    const double product = static_cast<double>(a[row * shape.columns + c]) * factor[row];
    sum = sum + product;
  }
  sums[j * shape.columns + c] = sum;
}

struct Gram {
  double products[kProducts];
  double lanes[kLanes];
};

/// Inner product in the CPU's order, for the whole block of threads: products are made by all, and added in
/// 16 chains from shared memory.
__device__ double inner(const double* x, const double* y, std::size_t n, Gram& shared) {
  double sum = 0.0;
  for (std::size_t first = 0; first < n; first += kProducts) {
    const std::size_t count = n - first < kProducts ? n - first : kProducts;
    __syncthreads();
    for (std::size_t i = threadIdx.x; i < count; i += kThreads) {
      shared.products[i] = x[first + i] * y[first + i];
    }
    __syncthreads();
    if (threadIdx.x >= kLanes) continue;
#pragma unroll 8
    for (std::size_t i = threadIdx.x; i < count; i += kLanes) sum = sum + shared.products[i];
  }
  if (threadIdx.x < kLanes) shared.lanes[threadIdx.x] = sum;
  __syncthreads();
  double lane[kLanes];
#pragma unroll
  for (unsigned k = 0; k < kLanes; ++k) lane[k] = shared.lanes[k];
#pragma unroll
  for (unsigned half = kLanes / 2; half > 0; half /= 2) {
#pragma unroll
    for (unsigned k = 0; k < half; ++k) lane[k] = lane[k] + lane[k + half];
  }
  return lane[0];
}

__device__ void subtract(double* x, double factor, const double* y, std::size_t n) {
  for (std::size_t i = threadIdx.x; i < n; i += kThreads) {
    const double product = factor * y[i];
    x[i] = x[i] - product;
  }
}

__device__ void finish(const double* from, double scale, std::size_t n, double* kept, float* to) {
  for (std::size_t i = threadIdx.x; i < n; i += kThreads) {
    const double value = from[i] * scale;
    kept[i] = value;
    to[i] = static_cast<float>(value);
  }
}

/// Gram-Schmidt on the rows of p; those of q undergo the same. One block of threads: the steps depend on one
/// another, and both lie in the second-level cache.
__global__ void __launch_bounds__(kThreads)
    orthonormal_kernel(double* left, double* right, const PowersgdShape shape, std::size_t rows, float* p,
                       float* q) {
  PYDEC_SHARED(Gram, shared);
  for (unsigned j = 0; j < shape.rank; ++j) {
    double* mine = left + j * rows;
    double* other_side = right + j * shape.columns;
    const double before = inner(mine, mine, rows, shared);
    for (unsigned round = 0; round < 2; ++round) {
      for (unsigned other = 0; other < j; ++other) {
        const double share = inner(mine, left + other * rows, rows, shared);
        __syncthreads();
        subtract(mine, share, left + other * rows, rows);
        subtract(other_side, share, right + other * shape.columns, shape.columns);
        __syncthreads();
      }
    }
    const double after = inner(mine, mine, rows, shared);
    // Comparisons are false for NaN, and a vector that holds one is refused.
    const double scale = after > before * (kLeastShare * kLeastShare) ? 1.0 / sqrt(after) : 0.0;
    __syncthreads();
    finish(mine, scale, rows, mine, p + j * rows);
    finish(other_side, scale, shape.columns, other_side, q + j * shape.columns);
    __syncthreads();
  }
}

constexpr std::size_t kMessages = 64;  // that one launch adds

struct Messages {
  const float* left[kMessages];
  const float* right[kMessages];
  float w[kMessages];
  unsigned rank[kMessages];
  unsigned m;
};

/// A block of threads takes 256 columns of 8 rows. m = 0: the only message is decoded.
__global__ void __launch_bounds__(kThreads)
    product_kernel(const __grid_constant__ Messages messages, std::size_t n, std::size_t columns,
                   std::size_t rows, float* out) {
  const std::size_t across = (columns + kThreads - 1) / kThreads;
  const std::size_t tiles = across * ((rows + kTileRows - 1) / kTileRows);
  for (std::size_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::size_t row = tile / across * kTileRows;
    const std::size_t c = tile % across * kThreads + threadIdx.x;
    if (c >= columns) continue;
    float total[kTileRows];
#pragma unroll
    for (unsigned i = 0; i < kTileRows; ++i) {
      const std::size_t place = (row + i) * columns + c;
      total[i] = messages.m != 0 && row + i < rows && place < n ? out[place] : 0.0f;
    }
    for (unsigned k = 0; k == 0 || k < messages.m; ++k) {
      const unsigned rank = messages.rank[k];
      float q[kMaxRank];
#pragma unroll
      for (unsigned j = 0; j < kMaxRank; ++j) q[j] = j < rank ? messages.right[k][j * columns + c] : 0.0f;
#pragma unroll
      for (unsigned i = 0; i < kTileRows; ++i) {
        if (row + i >= rows) continue;
        const float* p = messages.left[k] + row + i;
        float value = p[0] * q[0];
#pragma unroll
        for (unsigned j = 1; j < kMaxRank; ++j) {
          if (j >= rank) break;
          const float product = p[j * rows] * q[j];
          value = value + product;
        }
        const float term = messages.w[k] * value;
        total[i] = messages.m == 0 ? value : total[i] + term;
      }
    }
#pragma unroll
    for (unsigned i = 0; i < kTileRows; ++i) {
      const std::size_t place = (row + i) * columns + c;
      if (row + i < rows && place < n) out[place] = total[i];
    }
  }
}

cudaError_t add_products(const Messages& messages, std::size_t n, std::size_t columns, float* out,
                         cudaStream_t stream) {
  const std::size_t rows = powersgd_rows(n, columns);
  const std::size_t tiles = (columns + kThreads - 1) / kThreads * ((rows + kTileRows - 1) / kTileRows);
  PYDEC_LAUNCH(product_kernel, grid_of(tiles, 1), kThreads, stream)(messages, n, columns, rows, out);
  return cudaGetLastError();
}

Messages messages_of(const PowersgdMessage* messages, std::size_t count) {
  Messages some = {};
  for (std::size_t k = 0; k < count; ++k) {
    some.left[k] = messages[k].left;
    some.right[k] = messages[k].right;
    some.w[k] = messages[k].weight;
    some.rank[k] = static_cast<unsigned>(messages[k].rank);
  }
  return some;
}

bool ranks_fit(const PowersgdMessage* messages, std::size_t m) {
  for (std::size_t k = 0; k < m; ++k) {
    if (messages[k].rank < 1 || messages[k].rank > kMaxRank) return false;
  }
  return true;
}

}  // namespace

std::size_t powersgd_work(const PowersgdShape& shape) noexcept {
  return shape.rank * (powersgd_rows(shape.n, shape.columns) + shape.columns);
}

cudaError_t powersgd_start_f32(const float* x, const float* residual, std::size_t n, std::uint64_t seed,
                               std::size_t count, float* start, Count* key, cudaStream_t stream) noexcept {
  PYDEC_LAUNCH(key_kernel, 1u, kWarp, stream)(x, residual, n, seed, key);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || count == 0) return error;
  PYDEC_LAUNCH(start_kernel, grid_of(count, kThreads), kThreads, stream)(key, count, start);
  return cudaGetLastError();
}

cudaError_t powersgd_iterate_f32(const float* x, float* residual, const PowersgdShape& shape, float* left,
                                 float* right, Count* bad, double* work, cudaStream_t stream) noexcept {
  if (shape.columns == 0 || shape.rank < 1 || shape.rank > kMaxRank) return cudaErrorInvalidValue;
  const std::size_t rows = powersgd_rows(shape.n, shape.columns);
  const auto rank = static_cast<unsigned>(shape.rank);
  double* const sums = work + shape.rank * rows;
  PYDEC_LAUNCH(scale_kernel, rank, kThreads, stream)(right, shape.columns);
  if (rows > 0) {
    PYDEC_LAUNCH(dot_kernel, grid_of(rows, kThreads / kDotLanes * kRowsAtOnce), kThreads, stream)
    (x, residual, shape, rows, right, work, bad);
  }
  PYDEC_LAUNCH(outer_kernel, static_cast<unsigned>((shape.columns + kColumns - 1) / kColumns), kWarp * rank,
               stream)
  (residual != nullptr ? residual : x, shape, rows, work, sums);
  PYDEC_LAUNCH(orthonormal_kernel, 1u, kThreads, stream)(work, sums, shape, rows, left, right);
  return cudaGetLastError();
}

cudaError_t powersgd_decode_f32(const PowersgdMessage& message, std::size_t n, std::size_t columns,
                                float* out, cudaStream_t stream) noexcept {
  if (columns == 0 || !ranks_fit(&message, 1)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  return add_products(messages_of(&message, 1), n, columns, out, stream);
}

cudaError_t powersgd_accumulate_f32(const PowersgdMessage* messages, std::size_t m, std::size_t n,
                                    std::size_t columns, float* out, cudaStream_t stream) noexcept {
  if (columns == 0 || !ranks_fit(messages, m)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  for (std::size_t done = 0; done < m; done += kMessages) {
    const std::size_t count = m - done < kMessages ? m - done : kMessages;
    Messages some = messages_of(messages + done, count);
    some.m = static_cast<unsigned>(count);
    const cudaError_t error = add_products(some, n, columns, out, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace pydec::cuda
