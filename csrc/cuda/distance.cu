#include "cuda/four.h"
#include "cuda/grid.h"
#include "cuda/table.h"
#include "pydec/cuda.h"
#include "pydec/distance.h"
#include "pydec/robust.h"

namespace pydec::cuda {
namespace {

constexpr std::size_t kLanes = 8;                            // of a sum, as on the CPU
constexpr std::size_t kSide = 8;                             // vectors of a square of products
constexpr std::size_t kChunkTiles = kGramChunk / kGramTile;  // whose products are added before others
constexpr std::size_t kMostTiles = 4096;                     // whose products wait in the workspace at a time
constexpr std::size_t kWorkDoubles = std::size_t{1} << 22;

struct Vectors {
  const float* x[kMaxRobust];
  const float* c;
  std::size_t n;
  std::size_t d;
};

constexpr std::size_t pairs_of(std::size_t n) {
  return n * (n + 1) / 2;
}

/// Place of the pair i <= j in the workspace.
__device__ std::size_t pair_of(std::size_t i, std::size_t j) {
  return j * (j + 1) / 2 + i;
}

/// Tiles of a segment, after which their products are added in order: whole chunks.
std::size_t segment_of(std::size_t n, std::size_t d) {
  const std::size_t tiles = (d + kGramTile - 1) / kGramTile;
  const std::size_t room = kWorkDoubles / pairs_of(n) / kChunkTiles * kChunkTiles;
  const std::size_t least = room > 0 ? room : kChunkTiles;
  const std::size_t most = least < kMostTiles ? least : kMostTiles;
  return tiles < most ? tiles : most;
}

/// products[pair * tiles + t] of tile t. A block of threads takes a tile and a square of 8 x 8 pairs; eight
/// neighbouring threads are the lanes of one sum.
__global__ void __launch_bounds__(kThreads)
    product_kernel(const __grid_constant__ Vectors vectors, std::size_t first_tile, std::size_t tiles,
                   double* products) {
  using Rows = double[2 * kSide][kGramTile];
  PYDEC_SHARED(Rows, rows);
  // Squares on and above the diagonal, numbered column by column.
  unsigned column = 0;
  while ((column + 1) * (column + 2) / 2 <= blockIdx.y) ++column;
  const unsigned row = blockIdx.y - column * (column + 1) / 2;
  for (std::size_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::size_t e = (first_tile + tile) * kGramTile + threadIdx.x;
    static_assert(kThreads == kGramTile);
    for (unsigned k = 0; k < 2 * kSide; ++k) {
      const std::size_t vector = (k < kSide ? row * kSide : column * kSide - kSide) + k;
      double value = 0.0;
      if (vector < vectors.n && e < vectors.d) {
        value = vectors.x[vector][e];
        if (vectors.c != nullptr) value = value - static_cast<double>(vectors.c[e]);
      }
      rows[k][threadIdx.x] = value;
    }
    __syncthreads();
    const unsigned lane = threadIdx.x % kLanes;
    for (unsigned square = threadIdx.x / kLanes; square < kSide * kSide; square += kThreads / kLanes) {
      const unsigned a = square / kSide;
      const unsigned b = square % kSide;
      double sum = 0.0;
#pragma unroll 8
      for (unsigned at = lane; at < kGramTile; at += kLanes) {
        const double product = rows[a][at] * rows[kSide + b][at];
        sum = sum + product;
      }
      // Lanes j and j + 4, then j and j + 2, then the two that are left.
#pragma unroll
      for (unsigned by = kLanes / 2; by > 0; by /= 2) sum = sum + __shfl_xor_sync(kFullWarp, sum, by);
      const std::size_t i = row * kSide + a;
      const std::size_t j = column * kSide + b;
      if (lane == 0 && i <= j && j < vectors.n) products[pair_of(i, j) * tiles + tile] = sum;
    }
    __syncthreads();
  }
}

/// Adds the products of a segment to the matrix, in order; a thread for each pair.
__global__ void __launch_bounds__(kThreads)
    order_kernel(const double* products, std::size_t tiles, std::size_t n, bool first, double* gram) {
  const std::size_t pair = std::size_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pair >= pairs_of(n)) return;
  std::size_t j = 0;
  while (pair_of(0, j + 1) <= pair) ++j;
  const std::size_t i = pair - pair_of(0, j);
  double total = first ? 0.0 : gram[i * n + j];
  for (std::size_t start = 0; start < tiles; start += kChunkTiles) {
    const std::size_t end = tiles - start < kChunkTiles ? tiles : start + kChunkTiles;
    double chunk = 0.0;
#pragma unroll 8
    for (std::size_t tile = start; tile < end; ++tile) chunk = chunk + products[pair * tiles + tile];
    total = total + chunk;
  }
  gram[i * n + j] = total;
  gram[j * n + i] = total;
}

struct Differences {
  const float* x[kMaxMix];
  float factor[kMaxMix];
  const float* on_device;
  unsigned m;
  const float* y;
  float* out;
  std::size_t n;
  bool aligned;
};

/// All inputs of an element are read before its output is written, which may be one of them.
__global__ void __launch_bounds__(kThreads) add_kernel(const __grid_constant__ Differences all) {
  const std::size_t stride = std::size_t{gridDim.x} * kTile;
  for (std::size_t i = std::size_t{blockIdx.x} * kTile + threadIdx.x * 4; i < all.n; i += stride) {
    const unsigned count = four_of(i, all.n);
    const Four y = load_four(all.y + i, count, all.aligned);
    Four total = load_four(all.out + i, count, all.aligned);
#pragma unroll 4
    for (unsigned k = 0; k < all.m; ++k) {
      const float factor = all.on_device != nullptr ? all.on_device[k] : all.factor[k];
      if (all.on_device != nullptr && magnitude_bits(factor) > kInfinityBits) continue;
      const Four x = load_four(all.x[k] + i, count, all.aligned);
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) total.v[j] = total.v[j] + factor * (x.v[j] - y.v[j]);
    }
    store_four(total, all.out + i, count, all.aligned);
  }
}

struct Clip {
  double weight[kMaxMix];
  double radius[kMaxMix];
  unsigned m;
};

__global__ void clip_kernel(const double* sqdist, const __grid_constant__ Clip clip, float* factor) {
  const unsigned k = threadIdx.x;
  if (k >= clip.m) return;
  const double squared = sqdist[k];
  if (!(squared < static_cast<double>(float_of(kInfinityBits)))) {
    factor[k] = float_of(kNaNBits);
    return;
  }
  const double distance = sqrt(squared);
  const double share = distance > clip.radius[k] ? clip.radius[k] / distance : 1.0;
  factor[k] = static_cast<float>(clip.weight[k] * share);
}

}  // namespace

std::size_t gram_work(std::size_t n, std::size_t d) noexcept {
  return n == 0 ? 0 : pairs_of(n) * segment_of(n, d);
}

cudaError_t gram_f32(const float* const* x, std::size_t n, const float* c, std::size_t d, double* gram,
                     double* work, cudaStream_t stream) noexcept {
  if (n == 0 || n > kMaxRobust) return cudaErrorInvalidValue;
  Vectors vectors = {};
  for (std::size_t k = 0; k < n; ++k) vectors.x[k] = x[k];
  vectors.c = c;
  vectors.n = n;
  vectors.d = d;
  const auto sides = static_cast<unsigned>((n + kSide - 1) / kSide);
  const std::size_t tiles = (d + kGramTile - 1) / kGramTile;
  const auto pair_blocks = static_cast<unsigned>((pairs_of(n) + kThreads - 1) / kThreads);
  const std::size_t segment = segment_of(n, d);
  std::size_t first = 0;
  do {
    const std::size_t some = tiles - first < segment ? tiles - first : segment;
    if (some > 0) {
      const dim3 grid(grid_of(some, 1), sides * (sides + 1) / 2);
      PYDEC_LAUNCH(product_kernel, grid, kThreads, stream)(vectors, first, some, work);
      const cudaError_t error = cudaGetLastError();
      if (error != cudaSuccess) return error;
    }
    PYDEC_LAUNCH(order_kernel, pair_blocks, kThreads, stream)(work, some, n, first == 0, gram);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
    first += some;
  } while (first < tiles);
  return cudaSuccess;
}

cudaError_t add_differences_f32(const float* const* x, const float* factor, bool on_device, std::size_t m,
                                const float* y, float* out, std::size_t n, cudaStream_t stream) noexcept {
  if (m > kMaxMix) return cudaErrorInvalidValue;
  if (m == 0 || n == 0) return cudaSuccess;
  Differences all = {};
  all.aligned = aligned_to(16, y, out);
  for (std::size_t k = 0; k < m; ++k) {
    all.x[k] = x[k];
    all.aligned = all.aligned && aligned_to(16, x[k]);
    if (!on_device) all.factor[k] = factor[k];
  }
  all.on_device = on_device ? factor : nullptr;
  all.m = static_cast<unsigned>(m);
  all.y = y;
  all.out = out;
  all.n = n;
  PYDEC_LAUNCH(add_kernel, grid_of(tiles_of(n), 1), kThreads, stream)(all);
  return cudaGetLastError();
}

cudaError_t clip_factors(const double* sqdist, const double* weight, const double* radius, std::size_t m,
                         float* factor, cudaStream_t stream) noexcept {
  if (m > kMaxMix) return cudaErrorInvalidValue;
  if (m == 0) return cudaSuccess;
  Clip clip = {};
  for (std::size_t k = 0; k < m; ++k) {
    clip.weight[k] = weight[k];
    clip.radius[k] = radius[k];
  }
  clip.m = static_cast<unsigned>(m);
  PYDEC_LAUNCH(clip_kernel, 1u, static_cast<unsigned>(kMaxMix), stream)(sqdist, clip, factor);
  return cudaGetLastError();
}

}  // namespace pydec::cuda
