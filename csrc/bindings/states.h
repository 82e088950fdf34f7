// Vectors of every state type: float32 and float64, which kernels take as they are, and bfloat16 and float16,
// which come through float32 a piece at a time.
//
// A piece of each vector is widened, the kernel of float32 runs on the pieces while the caches hold them, and
// what it wrote is rounded once, to nearest even; a NaN stays one. So a result is that of float32 arithmetic
// on the exact values, rounded once, wherever the pieces are cut.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/parallel.h"
#include "pydec/cast.h"

namespace pydec::bindings {

/// 16 bits that stand for a number.
template <Half half>
struct HalfElement {
  std::uint16_t code;
};
using BF16 = HalfElement<Half::bf16>;
using FP16 = HalfElement<Half::fp16>;
template <>
inline constexpr Dtype dtype_of<BF16> = Dtype::bfloat16;
template <>
inline constexpr Dtype dtype_of<FP16> = Dtype::float16;

/// The type that kernels compute in.
template <class T>
using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;
template <class T>
constexpr bool kIsHalf = !std::is_same_v<T, Real<T>>;
/// Place in the tables of CastKernels.
template <class T>
constexpr int kHalf = 0;
template <Half half>
inline constexpr int kHalf<HalfElement<half>> = static_cast<int>(half);

template <Half half>
U16* codes_of(HalfElement<half>* data) {
  return reinterpret_cast<U16*>(data);
}

/// Calls body(vector) with an argument as an Array of its type. Raises TypeError if that is no state type.
template <class Body>
auto with_state(py::handle object, const Name& name, const Body& body) {
  const Span span(object, name, Dtype::float32);
  switch (span.dtype) {
    case Dtype::float32:
      return body(Array<float>(span, object, name));
    case Dtype::float64:
      return body(Array<double>(span, object, name));
    case Dtype::bfloat16:
      return body(Array<BF16>(span, object, name));
    case Dtype::float16:
      return body(Array<FP16>(span, object, name));
    default:
      span.refuse_dtype(object, name, "float32, float64, bfloat16 or float16", Dtype::float32);
  }
}

/// The same with the first of several items, or with an empty array of float32 if there is none.
template <class Body>
auto with_first_state(const py::tuple& items, const char* name, const Body& body) {
  return with_state(items.empty() ? py::object(py::array_t<float>(0)) : py::object(items[0]),
                    item_name(name, 0), body);
}

/// Of the kernels of float32 and of float64, the one that vectors of T take.
template <class T, class Single, class Double>
auto by_type(Single single, Double other) {
  if constexpr (std::is_same_v<T, double>) {
    return other;
  } else {
    return single;
  }
}

/// Whether the kernel may write an output of n elements past the caches.
template <class T>
constexpr bool streams_state(std::size_t n) {
  return !kIsHalf<T> && streams<T>(n);
}

/// What a kernel does with a vector.
enum class Use { read, write, update };

/// A vector of a call; null is null to the kernel as well.
template <class T>
struct Part {
  T* data;
  Use use;
};

/// Parts that are read, before others.
template <class T>
std::vector<Part<T>> parts_of(T* const* read, std::size_t m, std::initializer_list<Part<T>> others) {
  std::vector<Part<T>> parts;
  parts.reserve(m + others.size());
  for (std::size_t k = 0; k < m; ++k) parts.push_back({read[k], Use::read});
  parts.insert(parts.end(), others);
  return parts;
}

/// The vectors of a call, piece by piece as its kernel takes them. One at a time on each calling thread.
template <class T>
class Pieces {
 public:
  /// Pieces are multiples of `unit` but the last of a share, and there are `spare` rows more, for what the
  /// caller puts there.
  Pieces(const Shares& shares, std::vector<Part<T>> parts, std::size_t unit = kUnit, std::size_t spare = 0)
      : parts_(std::move(parts)), cut_(kIsHalf<T> || spare > 0), rows_(shares, parts_.size() + spare) {
    if (!cut_) return;
    const std::size_t rows = parts_.size() + spare;
    const std::size_t most = std::clamp(kPieceElements / rows, kShortest, kLongest);
    length_ = std::min(std::max(most / unit, std::size_t{1}) * unit, shares.elements());
    stride_ = (length_ * sizeof(Real<T>) + kPad) / kLine * kLine;
    thread_local Room<unsigned char> room;
    room_ = room.of(shares.threads() * rows * stride_);
    for (std::size_t row = 0; row < shares.threads() * rows; ++row) {
      rows_[0][row] = reinterpret_cast<Real<T>*>(room_ + row * stride_);
    }
  }

  /// Calls kernel(vectors, piece) for the pieces of a share in order; one piece if nothing has to be cut.
  template <class Kernel>
  void run(const Share& share, const Kernel& kernel) {
    Share piece = share;
    if (!cut_) {
      Real<T>** vectors = rows_[share.worker];
      point(vectors, piece);
      return kernel(vectors, piece);
    }
    for (std::size_t done = 0; done < share.count; done += piece.count) {
      piece.first = share.first + done;
      piece.count = std::min(length_, share.count - done);
      run_piece(piece, kernel);
    }
  }

 private:
  static constexpr std::size_t kUnit = 16;
  static constexpr std::size_t kPieceElements = std::size_t{32} << 10;  // of all rows: a second-level cache's
  static constexpr std::size_t kShortest = 512;
  static constexpr std::size_t kLongest = 8192;
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kPad = 6 * kLine - 1;  // rows at one place of a page compete for cache lines

  void point(Real<T>** vectors, const Share& piece) {
    if constexpr (!kIsHalf<T>) {
      for (std::size_t k = 0; k < parts_.size(); ++k) vectors[k] = shifted(parts_[k].data, piece);
    }
  }

  template <class Kernel>
  void run_piece(const Share& piece, const Kernel& kernel) {
    Real<T>** vectors = rows_[piece.worker];
    if constexpr (!kIsHalf<T>) {
      point(vectors, piece);
      kernel(vectors, piece);
    } else {
      const CastKernels& cast = active<CastKernels>();
      for (std::size_t k = 0; k < parts_.size(); ++k) {
        if (parts_[k].data == nullptr) {
          vectors[k] = nullptr;
        } else if (parts_[k].use != Use::write) {
          cast.decode_f32[kHalf<T>](codes_of(parts_[k].data + piece.first), piece.count, vectors[k]);
        }
      }
      kernel(vectors, piece);
      for (std::size_t k = 0; k < parts_.size(); ++k) {
        if (parts_[k].data == nullptr || parts_[k].use == Use::read) continue;
        cast.encode_f32[kHalf<T>](vectors[k], nullptr, piece.count, codes_of(parts_[k].data + piece.first));
      }
    }
  }

  std::vector<Part<T>> parts_;
  bool cut_;
  Rows<Real<T>*> rows_;
  std::size_t length_ = 0;
  std::size_t stride_ = 0;
  unsigned char* room_ = nullptr;
};

}  // namespace pydec::bindings
