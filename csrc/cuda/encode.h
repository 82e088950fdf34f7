// Quantisation of what a source gives, one warp for each block: plain vectors, differences, CHOCO steps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/count.h"
#include "cuda/quantise.h"
#include "cuda/table.h"
#include "pydec/cuda.h"

namespace pydec::cuda {

/// How blocks are coded.
struct EncodeShape {
  std::size_t block;
  std::uint64_t seed;  ///< of random numbers
};

/// Where a vector's message goes.
struct EncodeTarget {
  std::size_t n;
  std::uint8_t* codes;
  float* scales;
  std::uint64_t place;  ///< of the first element in the order of random numbers
  bool aligned;         ///< the source's vectors, to 16
  bool codes_aligned;   ///< to 4
};

template <class Vectors>
struct EncodeItem {
  Vectors vectors;
  EncodeTarget to;
};

namespace {

/// A source has `Vectors` with pointers, and for four elements from i on
///   Held load(vectors, i, count, aligned)      what is kept until the codes are known
///   Four start(vectors, held, i, count, ...)   what is coded, with anything that must be written before
///   void settle(vectors, held, a, value, ...)  the end, with the value that is sent
/// `again` is start without writing, for blocks that do not fit in registers. Strips of 128 elements: up to
/// `strips` stay in registers; 0: any number, read twice.
template <Codec codec, bool stochastic, unsigned strips, class Source>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const __grid_constant__ Table<EncodeItem<typename Source::Vectors>> table,
                  std::size_t units, const EncodeShape shape, const Source source, Count* bad) {
  using C = CodecOf<codec>;
  constexpr unsigned kHeld = strips == 0 ? 1 : strips;
  float* const room = room_for_sums<codec == Codec::sign>();
  const unsigned lane = threadIdx.x % kWarp;
  unsigned found = 0;
  Cursor cursor;
  for (std::size_t unit = std::size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; unit < units;
       unit += std::size_t{gridDim.x} * kWarps) {
    const std::size_t index = cursor.move(table, unit);
    const auto& item = table.at[cursor.item];
    const std::size_t first = index * shape.block;
    const std::size_t length = item.to.n - first < shape.block ? item.to.n - first : shape.block;
    const std::size_t rounds = strips == 0 ? (length + kStrip - 1) / kStrip : kHeld;
    std::uint8_t* codes = item.to.codes + first / (8 / C::kBits);
    typename Source::Held held[kHeld];
    Four a[kHeld];
    Gather<codec> gather;
#pragma unroll
    for (std::size_t s = 0; s < rounds; ++s) {
      const std::size_t i = s * kStrip + lane * 4;
      const std::size_t k = strips == 0 ? 0 : s;
      a[k] = source.template start<strips == 0>(item.vectors, held[k], first + i, four_of(i, length),
                                                item.to.aligned);
      gather.add(a[k], room);
    }
    const Int8Rule rule = gather.rule(length, room);
    if (lane == 0) {
      item.to.scales[index] = rule.scale;
      found += rule.kind == Int8Kind::bad ? 1 : 0;
    }
#pragma unroll
    for (std::size_t s = 0; s < rounds; ++s) {
      const std::size_t i = s * kStrip + lane * 4;
      const std::size_t k = strips == 0 ? 0 : s;
      const unsigned count = four_of(i, length);
      if (strips == 0) a[0] = source.again(item.vectors, held[0], first + i, count, item.to.aligned);
      Four value = {};
      const std::uint32_t word =
          code_four<codec, stochastic>(a[k], value, count, rule, shape.seed, item.to.place + first + i);
      source.settle(item.vectors, held[k], a[k], value, rule.kind, first + i, count, item.to.aligned);
      store_codes<C>(word, s, length, codes, item.to.codes_aligned);
    }
  }
  add_count(found, bad);
}

/// Whether a block is coded once it is whole, and may be rounded at random.
inline bool fits(Codec codec, std::size_t block, bool stochastic) {
  const bool integer = codec == Codec::int8 || codec == Codec::int4 || codec == Codec::int2;
  return block != 0 && block % group_of(codec) == 0 && (integer || !stochastic);
}

template <Codec codec, bool stochastic, unsigned strips, class Source, class Span, class ItemOf>
cudaError_t launch_encode(const Span* spans, std::size_t count, const EncodeShape& shape,
                          const Source& source, const ItemOf& item_of, Count* bad, cudaStream_t stream) {
  using Item = EncodeItem<typename Source::Vectors>;
  const auto blocks_of = [&shape](const Span& span) {
    return span.n / shape.block + (span.n % shape.block != 0 ? 1 : 0);
  };
  return for_tables<Item>(spans, count, item_of, blocks_of, [&](const Table<Item>& table) {
    constexpr auto kernel = encode_kernel<codec, stochastic, strips, Source>;
    PYDEC_LAUNCH(kernel, grid_of(table.units(), kWarps), kThreads, stream)
    (table, table.units(), shape, source, bad);
  });
}

/// Chooses the kernel: `wide` sources keep 8 strips in registers too.
template <Codec codec, class Source, class Span, class ItemOf>
cudaError_t encode_as(const Span* spans, std::size_t count, std::size_t block, const std::uint64_t* key,
                      const Source& source, const ItemOf& item_of, Count* bad, cudaStream_t stream) {
  const EncodeShape shape{block, key != nullptr ? draw_seed(*key) : 0};
  const auto go = [&](auto stochastic) {
    constexpr bool kRandom = decltype(stochastic)::value;
    if (block <= 2 * kStrip) {
      return launch_encode<codec, kRandom, 2>(spans, count, shape, source, item_of, bad, stream);
    }
    if constexpr (Source::kWide) {
      if (block <= 8 * kStrip) {
        return launch_encode<codec, kRandom, 8>(spans, count, shape, source, item_of, bad, stream);
      }
    }
    return launch_encode<codec, kRandom, 0>(spans, count, shape, source, item_of, bad, stream);
  };
  if constexpr (codec == Codec::int8 || codec == Codec::int4 || codec == Codec::int2) {
    if (key != nullptr) return go(std::true_type());
  }
  return go(std::false_type());
}

template <class Source, class Span, class ItemOf>
cudaError_t encode_spans(Codec codec, const Span* spans, std::size_t count, std::size_t block,
                         const std::uint64_t* key, const Source& source, const ItemOf& item_of, Count* bad,
                         cudaStream_t stream) {
  if (!fits(codec, block, key != nullptr)) return cudaErrorInvalidValue;
  switch (codec) {
    case Codec::int8:
      return encode_as<Codec::int8>(spans, count, block, key, source, item_of, bad, stream);
    case Codec::int4:
      return encode_as<Codec::int4>(spans, count, block, key, source, item_of, bad, stream);
    case Codec::int2:
      return encode_as<Codec::int2>(spans, count, block, key, source, item_of, bad, stream);
    case Codec::sign:
      return encode_as<Codec::sign>(spans, count, block, key, source, item_of, bad, stream);
    case Codec::e4m3:
      return encode_as<Codec::e4m3>(spans, count, block, key, source, item_of, bad, stream);
    case Codec::e5m2:
      return encode_as<Codec::e5m2>(spans, count, block, key, source, item_of, bad, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace pydec::cuda
