#include "pydec/threshold.h"

#include <algorithm>
#include <cmath>

namespace pydec {
namespace {

constexpr std::size_t kLine = 16;
constexpr std::size_t kMaxLines = 4096;        // 65,536 samples: 0.1 ms, and 1 % of them still hundreds
constexpr std::size_t kSparsity = 64;          // one sample in 64, as for top-k
constexpr std::size_t kMinElements = 1 << 14;  // below this, all elements are the sample

}  // namespace

ThresholdPlan plan_threshold(std::size_t n, std::size_t k, std::size_t least, std::size_t most) noexcept {
  if (n < kMinElements) return {0, k, least, most};
  const std::size_t lines = std::min(kMaxLines, n / (kSparsity * kLine));
  const double share = static_cast<double>(k) / static_cast<double>(n);
  const double rank = std::ceil(share * static_cast<double>(lines * kLine));
  return {lines, std::max(std::size_t{1}, static_cast<std::size_t>(rank)), least, most};
}

}  // namespace pydec
