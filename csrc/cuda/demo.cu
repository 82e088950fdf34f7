#include "cuda/count.h"
#include "cuda/demo_tile.h"
#include "pydec/demo.h"

namespace pydec::cuda {
namespace {

/// a = x (residual null) or a = x + beta * residual.
__device__ float element(const float* x, const float* residual, float beta, std::size_t i) {
  return residual != nullptr ? x[i] + beta * residual[i] : x[i];
}

/// A record of zeros for a tile that cannot be sent; its residual becomes a.
template <unsigned side>
__device__ void give_up(const float* x, float* residual, float beta, std::size_t length,
                        const DemoShape& shape, DemoRoom<side>& room, std::uint8_t* record) {
  __syncthreads();
  for (std::size_t j = threadIdx.x; j < shape.k; j += kThreads) {
    room.places[j] = static_cast<std::uint16_t>(j);
    room.values[j] = 0.0f;
  }
  __syncthreads();
  write_record(room, 0, shape, record);
  if (residual == nullptr) return;
  for (std::size_t i = threadIdx.x; i < length; i += kThreads) residual[i] = element(x, residual, beta, i);
}

/// A block of threads for each tile. bad[0] counts elements that are NaN or infinite, bad[1] tiles that are
/// too large.
template <unsigned side>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const float* x, float* residual, float beta, const DemoShape shape, std::size_t tiles,
                  std::size_t bytes, const __grid_constant__ Cosines<side> cosines, std::uint8_t* records,
                  Count* bad) {
  constexpr float kScale = 2.0f / static_cast<float>(side);
  using Room = DemoRoom<side>;
  PYDEC_SHARED(Room, room);
  for (unsigned i = threadIdx.x; i < 4 * side; i += kThreads) room.once[i] = cosines.once[i];
  unsigned nonfinite = 0;
  unsigned large = 0;
  for (std::size_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::size_t first = tile * Room::kElements;
    const std::size_t length = shape.n - first < Room::kElements ? shape.n - first : Room::kElements;
    float* rest = residual != nullptr ? residual + first : nullptr;
    std::uint8_t* record = records + tile * bytes;
    __syncthreads();
    if (threadIdx.x == 0) room.flag = room.largest = 0;
    __syncthreads();
    for (std::size_t i = threadIdx.x; i < Room::kElements; i += kThreads) {
      const float a = i < length ? element(x + first, rest, beta, i) : 0.0f;
      room.tile[at_row<side>(i)] = a;
      if (magnitude_bits(a) < kInfinityBits) continue;
      ++nonfinite;
      room.flag = 1;
    }
    __syncthreads();
    if (room.flag != 0) {
      give_up(x + first, rest, beta, length, shape, room, record);
      continue;
    }
    transform_lines<side>(room.tile, 1, Room::kStride);
    transform_lines<side>(room.tile, Room::kStride, 1);
    std::uint32_t largest = 0;
    const auto emit = [&](unsigned long long j, std::size_t place, float value) {
      const float scaled = value * kScale;
      room.places[j] = static_cast<std::uint16_t>(place);
      room.values[j] = scaled;
      largest = magnitude_bits(scaled) > largest ? magnitude_bits(scaled) : largest;
    };
    select_in_block([&](std::size_t place) { return room.tile[at_column<side>(place)]; }, Room::kElements,
                    shape.k, room.select, emit);
    atomicMax(&room.largest, largest);
    __syncthreads();
    if (room.largest >= demo_limit(shape.log_side)) {
      large += threadIdx.x == 0 ? 1 : 0;
      give_up(x + first, rest, beta, length, shape, room, record);
      continue;
    }
    write_record(room, room.largest, shape, record);
    if (rest == nullptr) continue;
    restore_tile(room, shape.k);
    for (std::size_t i = threadIdx.x; i < length; i += kThreads) {
      rest[i] = element(x + first, rest, beta, i) - room.tile[at_row<side>(i)];
    }
  }
  add_count(nonfinite, bad);
  add_count(large, bad + 1);
}

__global__ void __launch_bounds__(kThreads) check_kernel(const std::uint8_t* records, const DemoShape shape,
                                                         std::size_t tiles, std::size_t bytes, Count* first) {
  const std::uint32_t limit = demo_limit(shape.log_side);
  for (std::size_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const RecordReader reader(records + tile * bytes, shape);
    bool wrong = false;
    for (std::size_t j = threadIdx.x; j < shape.k; j += kThreads) wrong = wrong || reader.is_wrong(j, limit);
    if (wrong) atomicMin(first, static_cast<Count>(tile));
  }
}

constexpr std::size_t kMessages = 64;  // that one launch adds

struct Messages {
  const std::uint8_t* records[kMessages];
  float w[kMessages];
  unsigned m;
};

/// m = 0: the only message is decoded; else the messages are added one after the other. Nothing happens if
/// *first is below the number of tiles.
template <unsigned side>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ Messages messages, const DemoShape shape, std::size_t tiles,
                  std::size_t bytes, const __grid_constant__ Cosines<side> cosines, float* out,
                  const Count* first_bad) {
  if (first_bad != nullptr && *first_bad < tiles) return;
  using Room = DemoRoom<side>;
  PYDEC_SHARED(Room, room);
  for (unsigned i = threadIdx.x; i < 4 * side; i += kThreads) room.once[i] = cosines.once[i];
  for (std::size_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const std::size_t first = tile * Room::kElements;
    const std::size_t length = shape.n - first < Room::kElements ? shape.n - first : Room::kElements;
    for (unsigned m = 0; m == 0 || m < messages.m; ++m) {
      const RecordReader reader(messages.records[m] + tile * bytes, shape);
      for (std::size_t j = threadIdx.x; j < shape.k; j += kThreads) {
        room.values[j] = reader.value(j);
        room.places[j] = reader.place(j);
      }
      restore_tile(room, shape.k);
      float* to = out + first;
      for (std::size_t i = threadIdx.x; i < length; i += kThreads) {
        const float value = room.tile[at_row<side>(i)];
        if (messages.m == 0) {
          to[i] = value;
        } else {
          const float term = messages.w[m] * value;
          to[i] = to[i] + term;
        }
      }
    }
  }
}

bool fits(const DemoShape& shape) {
  return shape.log_side >= 4 && shape.log_side <= 6 && shape.k >= 1 &&
         shape.k <= std::size_t{1} << (2 * shape.log_side);
}

template <unsigned side>
cudaError_t encode(const float* x, float* residual, float beta, const DemoShape& shape, std::uint8_t* records,
                   Count* bad, cudaStream_t stream) {
  static constexpr Cosines<side> kCosines = make_cosines<side>();
  const std::size_t tiles = demo_tiles(shape.n, shape.log_side);
  const std::size_t bytes = demo_record(shape.k, shape.log_side, shape.values);
  PYDEC_LAUNCH(encode_kernel<side>, grid_of(tiles, 1), kThreads, stream)
  (x, residual, beta, shape, tiles, bytes, kCosines, records, bad);
  return cudaGetLastError();
}

template <unsigned side>
cudaError_t decode(const Messages& messages, const DemoShape& shape, float* out, const Count* first,
                   cudaStream_t stream) {
  static constexpr Cosines<side> kCosines = make_cosines<side>();
  const std::size_t tiles = demo_tiles(shape.n, shape.log_side);
  const std::size_t bytes = demo_record(shape.k, shape.log_side, shape.values);
  PYDEC_LAUNCH(decode_kernel<side>, grid_of(tiles, 1), kThreads, stream)
  (messages, shape, tiles, bytes, kCosines, out, first);
  return cudaGetLastError();
}

cudaError_t decode_any(const Messages& messages, const DemoShape& shape, float* out, const Count* first,
                       cudaStream_t stream) {
  if (shape.log_side == 4) return decode<16>(messages, shape, out, first, stream);
  if (shape.log_side == 5) return decode<32>(messages, shape, out, first, stream);
  return decode<64>(messages, shape, out, first, stream);
}

}  // namespace

cudaError_t demo_encode_f32(const float* x, float* residual, float beta, const DemoShape& shape,
                            std::uint8_t* records, Count* bad, cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  if (shape.log_side == 4) return encode<16>(x, residual, beta, shape, records, bad, stream);
  if (shape.log_side == 5) return encode<32>(x, residual, beta, shape, records, bad, stream);
  return encode<64>(x, residual, beta, shape, records, bad, stream);
}

cudaError_t demo_check(const std::uint8_t* records, const DemoShape& shape, Count* first,
                       cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  const std::size_t tiles = demo_tiles(shape.n, shape.log_side);
  PYDEC_LAUNCH(check_kernel, grid_of(tiles, 1), kThreads, stream)
  (records, shape, tiles, demo_record(shape.k, shape.log_side, shape.values), first);
  return cudaGetLastError();
}

cudaError_t demo_decode_f32(const std::uint8_t* records, const DemoShape& shape, float* out,
                            const Count* first, cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  Messages messages = {};
  messages.records[0] = records;
  return decode_any(messages, shape, out, first, stream);
}

cudaError_t demo_accumulate_f32(const std::uint8_t* const* records, const float* w, std::size_t m,
                                const DemoShape& shape, float* out, const Count* first,
                                cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  for (std::size_t done = 0; done < m; done += kMessages) {
    Messages messages = {};
    messages.m = static_cast<unsigned>(m - done < kMessages ? m - done : kMessages);
    for (unsigned k = 0; k < messages.m; ++k) {
      messages.records[k] = records[done + k];
      messages.w[k] = w[done + k];
    }
    const cudaError_t error = decode_any(messages, shape, out, first, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace pydec::cuda
