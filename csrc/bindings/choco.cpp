#include "pydec/choco.h"

#include "bindings/quant_states.h"

namespace pydec::bindings {
namespace {

/// A rank's three vectors, writeable, equally long and apart; checked.
template <class T>
struct State {
  State(const Array<T>& model, py::handle estimate_object, py::handle mixed_object)
      : x(model), estimate(beside(x, estimate_object, "estimate")), mixed(beside(x, mixed_object, "mixed")) {
    x.output();
    estimate.output().sized(x.size, "as x has");
    mixed.output().sized(x.size, "as x has");
    require_all_apart(x, estimate, mixed);
  }

  /// Those that a kernel updates, and another or null.
  std::vector<Part<T>> parts(T* gradient) const {
    return {{x.data, Use::update},
            {estimate.data, Use::update},
            {mixed.data, Use::update},
            {gradient, Use::read}};
  }

  const Array<T>& x;
  Array<T> estimate;
  Array<T> mixed;
};

template <class R>
struct Factors {
  R gamma;
  R own;
  R rate;
};

std::size_t step_piece(float* const* v, const Factors<float>& by, Codec codec, const EncodePart& part) {
  return active<ChocoKernels>().step_f32[static_cast<int>(codec)](
      {v[0], v[1], v[2], v[3]}, {by.gamma, by.own, by.rate}, part.n, part.block, part.draw, part.codes,
      part.scales, part.stream);
}

/// The same steps in float64, one after the other.
std::size_t step_piece(double* const* v, const Factors<double>& by, Codec codec, const EncodePart& part) {
  const DoubleCodec coder(codec, part.block, v + 4);
  double* const x = v[0];
  double* const estimate = v[1];
  double* const mixed = v[2];
  coder.sum({x, mixed, estimate}, {1.0, by.gamma, -by.gamma}, x, part.n);
  if (v[3] != nullptr) coder.sum({x, v[3]}, {1.0, -by.rate}, x, part.n);
  coder.sum({x, estimate}, {1.0, -1.0}, coder.row(), part.n);
  const std::size_t bad = coder.encode(coder.row(), part);
  coder.settle(part, bad, by.own, mixed);
  coder.settle(part, bad, 1.0, estimate);
  return bad;
}

void absorb_piece(float* const* v, float gamma, Codec codec, const QuantMessage* messages, const double*,
                  std::size_t m, std::size_t n, std::size_t block) {
  active<ChocoKernels>().absorb_f32[static_cast<int>(codec)]({v[0], v[1], v[2], nullptr}, gamma, messages, m,
                                                             n, block);
}

void absorb_piece(double* const* v, double gamma, Codec codec, const QuantMessage* messages,
                  const double* weights, std::size_t m, std::size_t n, std::size_t block) {
  const DoubleCodec coder(codec, block, v + 4);
  double* const x = v[0];
  double* const estimate = v[1];
  double* const mixed = v[2];
  for (std::size_t k = 0; k < m; ++k) {
    const double* const value = coder.decode(messages[k].codes, messages[k].scales, n);
    coder.sum({mixed, value}, {1.0, weights[k]}, mixed, n);
    if (k == 0) coder.sum({estimate, value}, {1.0, 1.0}, estimate, n);
  }
  coder.sum({x, mixed, estimate}, {1.0, gamma, -gamma}, x, n);
}

std::size_t step(py::handle x_object, py::handle estimate, py::handle mixed, py::handle gradient_object,
                 double gamma, double own_weight, double lr, py::handle codes, py::handle scales,
                 const std::string& codec, std::ptrdiff_t block, py::handle key, std::uint64_t first) {
  return with_state(x_object, "x", [&]<class T>(const Array<T>& x) {
    const State<T> arrays(x, estimate, mixed);
    const Encoding how(codes, scales, codec, block, key, first, x.size);
    how.to.apart(arrays.x, arrays.estimate, arrays.mixed);
    const Factors<Real<T>> factors{finite_weight<Real<T>>(gamma, "gamma"),
                                   finite_weight<Real<T>>(own_weight, "own_weight"),
                                   finite_weight<Real<T>>(lr, "lr")};
    T* data = nullptr;
    if (!gradient_object.is_none()) {
      const Array<T> gradient = beside(x, gradient_object, "gradient");
      gradient.sized(x.size, "as x has");
      require_all_apart(gradient, arrays.x, arrays.estimate, arrays.mixed, how.to.codes, how.to.scales);
      data = gradient.data;
    }
    py::gil_scoped_release nogil;  // touches no Python object
    return encode_pieces<T>(
        arrays.parts(data), x.size, how.codec, how.block, how.source(), how.to,
        [&](Real<T>* const* v, const EncodePart& part) { return step_piece(v, factors, how.codec, part); });
  });
}

void absorb(py::handle x_object, py::handle estimate, py::handle mixed, double gamma,
            const py::sequence& codes, const py::sequence& scales, const py::sequence& weights,
            const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  with_state(x_object, "x", [&]<class T>(const Array<T>& x) {
    const State<T> arrays(x, estimate, mixed);
    const Messages messages(codes, scales, weights, x.size, codec, block);
    messages.apart(arrays.x, arrays.estimate, arrays.mixed);
    if (messages.size() == 0) throw py::value_error("codes must hold the own message at least, got none");
    const auto factor = finite_weight<Real<T>>(gamma, "gamma");
    const std::size_t m = messages.size();
    const Shares shares(x.size, 6 * sizeof(T) + m, block_unit(block, x.size));
    SharedMessages part(shares, messages.data(), m, codec, block);
    Pieces<T> pieces(shares, arrays.parts(nullptr), block, kCodecRows<T>);
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&](const Share& share) {
      pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
        absorb_piece(v, factor, codec, part(piece), messages.weights.data(), m, piece.count, block);
      });
    });
  });
}

}  // namespace

void bind_choco(Module& m) {
  m.def("choco_step_f32", step, py::arg("x"), py::arg("estimate"), py::arg("mixed"),
        py::arg("gradient").none(true), py::arg("gamma"), py::arg("own_weight"), py::arg("lr"),
        py::arg("codes"), py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"),
        py::arg("first"));
  m.def("choco_absorb_f32", absorb, py::arg("x"), py::arg("estimate"), py::arg("mixed"), py::arg("gamma"),
        py::arg("codes"), py::arg("scales"), py::arg("weights"), py::arg("codec"), py::arg("block"));
}

}  // namespace pydec::bindings
