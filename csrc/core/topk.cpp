#include "pydec/topk.h"

#include <algorithm>
#include <cmath>

namespace pydec {
namespace {

constexpr std::size_t kLine = 16;              // float32 elements of a cache line
constexpr std::size_t kMaxLines = 4096;        // 65,536 samples: 0.1 ms, and 1 % of them still hundreds
constexpr std::size_t kSparsity = 64;          // one sample in 64: more cost more than better thresholds save
constexpr std::size_t kMinElements = 1 << 14;  // below this the exact passes run in cache and win

}  // namespace

TopkPlan plan_topk(std::size_t n, std::size_t k) noexcept {
  if (n < kMinElements || k == 0 || k > n / 8) return {};
  const std::size_t lines = std::min(kMaxLines, n / (kSparsity * kLine));
  const auto samples = static_cast<double>(lines * kLine);
  const double fraction = static_cast<double>(k) / static_cast<double>(n);
  const double expected = fraction * samples;
  // 4.5 standard deviations below the k-th magnitude: fewer than k candidates about once in 10^5 calls.
  const double margin = 4.5 * std::sqrt(expected) + 3.0;
  const double rank = std::ceil(expected + margin);
  const double sure = std::max(0.0, std::floor(expected - margin));
  const double candidates = rank / samples * static_cast<double>(n);
  const double room = candidates * (1.0 + 6.0 / std::sqrt(rank)) + 1024.0;
  const std::size_t capacity = std::max(static_cast<std::size_t>(room), lines * kLine);
  return {lines, static_cast<std::size_t>(rank), static_cast<std::size_t>(sure), capacity,
          capacity + capacity / 4};
}

}  // namespace pydec
