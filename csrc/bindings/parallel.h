// How a binding shares the elements of a call among threads. No cut changes a result: kernels that work
// element by element or block by block are cut between elements or blocks, and sums at the chunks that their
// order of additions is made of.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "pydec/pool.h"

namespace pydec::bindings {

// Calls that touch less memory stay on the calling thread: they take 10 to 20 us, and so does waking a
// helper.
constexpr std::size_t kSmallBytes = std::size_t{1} << 20;
// Memory that a share touches: enough that taking one costs nothing, little enough that the last one is soon
// done. Smaller calls have shares of down to a quarter of it, so that every thread gets several.
constexpr std::size_t kShareBytes = std::size_t{512} << 10;
// A line of the narrowest codes, 1 bit an element: threads do not write to the same lines.
constexpr std::size_t kShareUnit = 512;

/// Elements first .. first + count - 1, on the thread `worker`.
struct Share {
  std::size_t first;
  std::size_t count;
  std::size_t index;
  std::size_t worker;
};

/// A pointer to a share's first element; null stays null.
template <class T>
T* shifted(T* data, const Share& share) {
  return data != nullptr ? data + share.first : nullptr;
}

/// Where shares of n elements in blocks may be cut.
inline std::size_t block_unit(std::size_t block, std::size_t n) {
  return std::lcm(std::min(block, n), kShareUnit);
}

/// Elements before the first line that starts in an array.
template <class T>
std::size_t lead_of(const T* data) {
  const auto past = reinterpret_cast<std::uintptr_t>(data) % 64;
  return past % sizeof(T) == 0 ? (64 - past) % 64 / sizeof(T) : 0;
}

/// Bytes that are read and written for each of n elements when `entries` sparse ones are added to them: an
/// entry touches a line of 64, but a line is touched once.
inline std::size_t sparse_bytes(std::size_t n, std::size_t entries) {
  return entries >= n / 16 ? 8 : 1 + 128 * entries / std::max(n, std::size_t{1});
}

/// n elements in shares, all but the last of the same length.
class Shares {
 public:
  /// Shares that start `lead` elements after multiples of `unit` (the first at 0), of elements for which
  /// `bytes` each are read and written.
  Shares(std::size_t n, std::size_t bytes, std::size_t unit = kShareUnit, std::size_t lead = 0)
      : n_(n), length_(n), lead_(lead) {
    if (n * bytes < kSmallBytes) return;
    threads_ = num_threads();
    if (threads_ == 1) return;
    const std::size_t most = std::clamp(n * bytes / (4 * threads_), kShareBytes / 4, kShareBytes) / bytes;
    cut(std::max(most / unit, std::size_t{1}) * unit);
  }

  /// Shares of exactly `length` elements, whatever their number of bytes.
  static Shares of_length(std::size_t n, std::size_t length, std::size_t bytes) {
    Shares shares(0, 1);
    shares.n_ = n;
    if (n * bytes >= kSmallBytes) shares.threads_ = num_threads();
    shares.cut(length);
    return shares;
  }

  std::size_t size() const { return size_; }
  std::size_t elements() const { return n_; }
  /// Workers are below this.
  std::size_t threads() const { return threads_; }

  /// Calls body(share) for every share; it throws nothing.
  template <class Body>
  void run(const Body& body) const noexcept {
    run_some(0, size_, body);
  }

  /// Calls body(share) for `count` shares from the one with index `from` on.
  template <class Body>
  void run_some(std::size_t from, std::size_t count, const Body& body) const noexcept {
    if (count == 1) return body(at(from, 0));
    struct Context {
      const Shares* shares;
      const Body* body;
      std::size_t from;
    } context{this, &body, from};
    share_out(
        count, threads_,
        [](void* given, std::size_t chunk, std::size_t worker) noexcept {
          const auto* const call = static_cast<const Context*>(given);
          (*call->body)(call->shares->at(call->from + chunk, worker));
        },
        &context);
  }

  /// Calls visit(share) for every share in order, here and now, until it returns false.
  template <class Visit>
  void each(const Visit& visit) const {
    for (std::size_t index = 0; index < size_; ++index) {
      if (!visit(at(index, 0))) return;
    }
  }

  /// The sum of body(share), a count.
  template <class Body>
  std::size_t count(const Body& body) const noexcept {
    std::atomic<std::size_t> total{0};
    run([&](const Share& share) { total.fetch_add(body(share), std::memory_order_relaxed); });
    return total.load(std::memory_order_relaxed);
  }

 private:
  Share at(std::size_t index, std::size_t worker) const {
    const std::size_t first = index == 0 ? 0 : lead_ + index * length_;
    const std::size_t end = index + 1 == size_ ? n_ : lead_ + (index + 1) * length_;
    return {first, end - first, index, worker};
  }

  void cut(std::size_t length) {
    length_ = length;
    const std::size_t rest = n_ > lead_ ? n_ - lead_ : 0;
    size_ = std::max(rest / length + (rest % length != 0 ? 1 : 0), std::size_t{1});
    threads_ = std::min(threads_, size_);
  }

  std::size_t n_;
  std::size_t length_;
  std::size_t lead_;
  std::size_t size_ = 1;
  std::size_t threads_ = 1;
};

/// m items for each thread, such as pointers to what its share holds of m vectors, one thread after another.
template <class T>
class Rows {
 public:
  Rows(const Shares& shares, std::size_t m) : m_(m), items_(shares.threads() * m) {}
  T* operator[](std::size_t worker) { return items_.data() + worker * m_; }

 private:
  std::size_t m_;
  std::vector<T> items_;
};

}  // namespace pydec::bindings
