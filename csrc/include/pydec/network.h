// Sorting networks for 1..16 values, made and proved at compile time; CPU and CUDA kernels unroll them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pydec {

/// Puts the lower of two values at `low`; low < high.
struct Comparator {
  std::uint8_t low;
  std::uint8_t high;
};

constexpr std::size_t kMaxNetwork = 16;

struct Network {
  Comparator at[64];
  std::size_t size;
};

/// Calls compare(low, high) for the comparators of Batcher's odd-even merge sort that turn sorted runs of
/// `run` values (a power of two; the last run may be short) into one of n. Run 1 sorts anything.
///
/// Source: Batcher, "Sorting networks and their applications", AFIPS 1968; in the arrangement of Knuth, The
/// Art of Computer Programming 3, section 5.2.2, algorithm M.
template <class Compare>
constexpr void batcher(std::size_t n, std::size_t run, Compare&& compare) {
  for (std::size_t p = run; p < n; p *= 2) {
    for (std::size_t k = p; k > 0; k /= 2) {
      for (std::size_t j = k % p; j + k < n; j += 2 * k) {
        for (std::size_t i = j; i < j + k && i + k < n; ++i) {
          if (i / (2 * p) == (i + k) / (2 * p)) compare(i, i + k);
        }
      }
    }
  }
}

namespace network {

/// Green's 60 comparators for 16 values, the fewest known: four halvings, then these 28.
constexpr Comparator kGreen[] = {{5, 10},  {6, 9},  {3, 12}, {13, 14}, {4, 8},   {7, 11}, {1, 2},
                                 {1, 4},   {7, 13}, {2, 8},  {11, 14}, {2, 4},   {5, 6},  {9, 10},
                                 {11, 13}, {3, 8},  {7, 12}, {6, 8},   {10, 12}, {3, 5},  {7, 9},
                                 {3, 4},   {5, 6},  {7, 8},  {9, 10},  {11, 12}, {6, 7},  {8, 9}};

/// A network for n of 16 values: those beyond are taken for infinite, so they never move.
constexpr Network green(std::size_t n) {
  Network made{};
  for (std::size_t k = 1; k < kMaxNetwork; k *= 2) {
    for (std::size_t i = 0; i + k < n; ++i) {
      if ((i & k) == 0) made.at[made.size++] = {std::uint8_t(i), std::uint8_t(i + k)};
    }
  }
  for (const Comparator c : kGreen) {
    if (c.high < n) made.at[made.size++] = c;
  }
  return made;
}

constexpr Network odd_even(std::size_t n) {
  Network made{};
  batcher(n, 1, [&made](std::size_t low, std::size_t high) {
    made.at[made.size++] = {std::uint8_t(low), std::uint8_t(high)};
  });
  return made;
}

/// Whether a network sorts all 2^n vectors of zeros and ones, and so every vector (Knuth, theorem 5.3.4 Z).
/// Input v holds bit k at wire k; 64 inputs are tried at a time.
constexpr bool sorts(const Network& made, std::size_t n) {
  constexpr std::uint64_t kPeriod[] = {0xaaaaaaaaaaaaaaaa, 0xcccccccccccccccc, 0xf0f0f0f0f0f0f0f0,
                                       0xff00ff00ff00ff00, 0xffff0000ffff0000, 0xffffffff00000000};
  const std::uint64_t words = n > 6 ? std::uint64_t{1} << (n - 6) : 1;
  for (std::uint64_t word = 0; word < words; ++word) {
    std::uint64_t wire[kMaxNetwork] = {};
    for (std::size_t k = 0; k < n; ++k) wire[k] = k < 6 ? kPeriod[k] : ((word >> (k - 6)) & 1 ? ~0ull : 0);
    for (std::size_t c = 0; c < made.size; ++c) {
      const std::uint64_t a = wire[made.at[c].low];
      const std::uint64_t b = wire[made.at[c].high];
      wire[made.at[c].low] = a & b;
      wire[made.at[c].high] = a | b;
    }
    for (std::size_t k = 1; k < n; ++k) {
      if ((wire[k - 1] & ~wire[k]) != 0) return false;
    }
  }
  return true;
}

}  // namespace network

/// The smaller of two networks for n <= 16 values: 19 comparators for 8, 60 for 16.
constexpr Network network_of(std::size_t n) {
  const Network a = network::odd_even(n);
  const Network b = network::green(n);
  return b.size < a.size ? b : a;
}

}  // namespace pydec
