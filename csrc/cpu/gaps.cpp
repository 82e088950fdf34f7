#include "pydec/gaps.h"

namespace pydec {
namespace {

/// One row of the four lanes: a register on every target.
using Row = std::uint32_t __attribute__((vector_size(16)));

constexpr unsigned kRows = kGapGroup / 4;
constexpr unsigned kWordBits = 32;

inline Row load_row(const void* from) noexcept {
  Row row;
  __builtin_memcpy(&row, from, sizeof row);
  return row;
}

inline void store_row(Row row, void* to) noexcept {
  __builtin_memcpy(to, &row, sizeof row);
}

/// Rows `row` and up of a group; `word` holds the bits that do not fill one yet.
template <unsigned width, unsigned row>
inline void pack_rows(const Row* gaps, Row word, std::uint8_t* out) noexcept {
  if constexpr (row < kRows && width > 0) {
    constexpr unsigned kShift = row * width % kWordBits;
    const Row gap = gaps[row];
    word |= gap << kShift;
    if constexpr (kShift + width >= kWordBits) {
      store_row(word, out);
      out += sizeof word;
      if constexpr (kShift + width > kWordBits) {
        word = gap >> (kWordBits - kShift);
      } else {
        word = Row{};
      }
    }
    pack_rows<width, row + 1>(gaps, word, out);
  }
}

template <unsigned width, unsigned row>
inline void unpack_rows(const std::uint8_t* packed, Row* gaps) noexcept {
  if constexpr (row < kRows) {
    if constexpr (width == 0) {
      gaps[row] = Row{};
    } else {
      constexpr unsigned kWord = row * width / kWordBits;
      constexpr unsigned kShift = row * width % kWordBits;
      constexpr std::uint32_t kMask = ~0u >> (kWordBits - width);
      Row gap = load_row(packed + kWord * sizeof gap) >> kShift;
      if constexpr (kShift + width > kWordBits) {
        gap |= load_row(packed + (kWord + 1) * sizeof gap) << (kWordBits - kShift);
      }
      gaps[row] = gap & kMask;
    }
    unpack_rows<width, row + 1>(packed, gaps);
  }
}

/// A whole group of a width in low..high.
template <unsigned low, unsigned high>
void pack_group(unsigned width, const Row* gaps, std::uint8_t* out) noexcept {
  if constexpr (low == high) {
    pack_rows<low, 0>(gaps, Row{}, out);
  } else {
    constexpr unsigned kMiddle = (low + high) / 2;
    if (width <= kMiddle) return pack_group<low, kMiddle>(width, gaps, out);
    pack_group<kMiddle + 1, high>(width, gaps, out);
  }
}

template <unsigned low, unsigned high>
void unpack_width(unsigned width, const std::uint8_t* packed, Row* gaps) noexcept {
  if constexpr (low == high) {
    unpack_rows<low, 0>(packed, gaps);
  } else {
    constexpr unsigned kMiddle = (low + high) / 2;
    if (width <= kMiddle) return unpack_width<low, kMiddle>(width, packed, gaps);
    unpack_width<kMiddle + 1, high>(width, packed, gaps);
  }
}

/// All 128 gaps of a group, those after the last one too.
void unpack_gaps(const std::uint8_t* packed, unsigned width, std::size_t count, Row* gaps) noexcept {
  if (count == kGapGroup) return unpack_width<0, kMaxGapWidth>(width, packed, gaps);
  std::uint8_t whole[kGapGroup * sizeof(std::uint32_t)] = {};
  __builtin_memcpy(whole, packed, gap_bytes(count, width));
  unpack_width<0, kMaxGapWidth>(width, whole, gaps);
}

std::uint32_t any_bits(Row row) noexcept {
  return row[0] | row[1] | row[2] | row[3];
}

unsigned width_of(std::uint32_t bits) noexcept {
  return bits == 0 ? 0 : kWordBits - static_cast<unsigned>(__builtin_clz(bits));
}

bool increasing(const U32* indices, std::size_t k) noexcept {
  std::uint32_t disorder = 0;
  for (std::size_t j = 1; j < k; ++j) disorder |= indices[j] <= indices[j - 1] ? 1u : 0u;
  return disorder == 0;
}

std::size_t pack(const U32* indices, std::size_t k, std::uint8_t* widths, std::uint8_t* packed) noexcept {
  std::uint8_t* out = packed;
  Row before = Row{} - 1;  // whose last lane is the index before the next row
  for (std::size_t first = 0; first < k; first += kGapGroup) {
    const std::size_t count = k - first < kGapGroup ? k - first : kGapGroup;
    const U32* from = indices + first;
    std::uint32_t padded[kGapGroup];
    if (count < kGapGroup) {
      // One more than the index before it: a gap of 0.
      __builtin_memcpy(padded, from, count * sizeof(std::uint32_t));
      for (std::size_t i = count; i < kGapGroup; ++i) padded[i] = padded[i - 1] + 1;
    }
    const char* source =
        count < kGapGroup ? reinterpret_cast<const char*>(padded) : reinterpret_cast<const char*>(from);
    Row gaps[kRows];
    Row any = {};
    for (unsigned row = 0; row < kRows; ++row) {
      const Row here = load_row(source + row * sizeof here);
      gaps[row] = here - __builtin_shufflevector(before, here, 3, 4, 5, 6) - 1;
      any |= gaps[row];
      before = here;
    }
    const unsigned width = width_of(any_bits(any));
    *widths++ = static_cast<std::uint8_t>(width);
    if (count == kGapGroup) {
      pack_group<0, kMaxGapWidth>(width, gaps, out);
    } else {
      std::uint8_t whole[kGapGroup * sizeof(std::uint32_t)] = {};
      pack_group<0, kMaxGapWidth>(width, gaps, whole);
      __builtin_memcpy(out, whole, gap_bytes(count, width));
    }
    out += gap_bytes(count, width);
  }
  return static_cast<std::size_t>(out - packed);
}

/// Sum of 128 gaps of this width.
std::uint64_t sum_of(const Row* gaps, unsigned width) noexcept {
  if (width <= 27) {  // 32 rows do not overflow a lane
    Row sum = {};
    for (unsigned row = 0; row < kRows; ++row) sum += gaps[row];
    return std::uint64_t{sum[0]} + sum[1] + sum[2] + sum[3];
  }
  std::uint64_t sum = 0;
  for (unsigned row = 0; row < kRows; ++row) {
    for (unsigned lane = 0; lane < 4; ++lane) sum += gaps[row][lane];
  }
  return sum;
}

/// Whether gaps from `count` on, of a last group, are 0.
bool is_padded(const Row* gaps, std::size_t count) noexcept {
  std::uint32_t any = 0;
  for (std::size_t i = count; i < kGapGroup; ++i) any |= gaps[i / 4][i % 4];
  return any == 0;
}

unsigned check(const std::uint8_t* widths, const std::uint8_t* packed, std::size_t bytes, std::size_t k,
               std::size_t n, GapStart* starts) noexcept {
  std::size_t offset = 0;
  std::uint64_t end = 0;  // one more than the index before
  for (std::size_t first = 0; first < k; first += kGapGroup) {
    const std::size_t count = k - first < kGapGroup ? k - first : kGapGroup;
    const unsigned width = *widths++;
    if (width > kMaxGapWidth || bytes - offset < gap_bytes(count, width)) return kBadGapLength;
    Row gaps[kRows];
    unpack_gaps(packed + offset, width, count, gaps);
    Row any = {};
    for (unsigned row = 0; row < kRows; ++row) any |= gaps[row];
    if (width_of(any_bits(any)) != width || !is_padded(gaps, count)) return kBadGapWidth;
    if (starts != nullptr) *starts++ = {offset, static_cast<std::uint32_t>(end - 1)};
    end += sum_of(gaps, width) + count;
    if (end > n) return kBadGapIndex;
    offset += gap_bytes(count, width);
  }
  return offset == bytes ? 0u : unsigned{kBadGapLength};
}

void unpack_group(const std::uint8_t* packed, unsigned width, std::size_t count, std::uint32_t previous,
                  U32* indices) noexcept {
  Row gaps[kRows];
  unpack_gaps(packed, width, count, gaps);
  const Row zero = {};
  Row before = zero + previous;
  for (unsigned row = 0; row < kRows; ++row) {
    Row sum = gaps[row] + 1;
    sum += __builtin_shufflevector(zero, sum, 0, 4, 5, 6);
    sum += __builtin_shufflevector(zero, sum, 0, 1, 4, 5);
    sum += before;
    store_row(sum, indices + row * 4);
    before = __builtin_shufflevector(sum, sum, 3, 3, 3, 3);
  }
}

}  // namespace

template <>
const GapKernels& table<GapKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr GapKernels kernels{
      .increasing = increasing, .pack = pack, .check = check, .unpack_group = unpack_group};
  return kernels;
}

}  // namespace pydec
