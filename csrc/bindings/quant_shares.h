// How threads share out encoded vectors: at blocks, so that every share has whole codes and scales of its
// own.
#pragma once

#include "bindings/parallel.h"
#include "bindings/quant.h"

namespace pydec::bindings {

/// The part of a message, or of the room for one, that belongs to a share.
struct CodesAt {
  CodesAt(const Message& message, Codec codec, std::size_t block, const Share& share)
      : codes(message.codes.data + code_bytes(codec, share.first)),
        scales(message.scales.data + share.first / block) {}

  std::uint8_t* codes;
  float* scales;
};

/// The parts of m messages.
class SharedMessages {
 public:
  SharedMessages(const Shares& shares, const QuantMessage* messages, std::size_t m, Codec codec,
                 std::size_t block)
      : messages_(messages), m_(m), codec_(codec), block_(block), rows_(shares, m) {}

  const QuantMessage* operator()(const Share& share) {
    QuantMessage* row = rows_[share.worker];
    for (std::size_t k = 0; k < m_; ++k) {
      row[k] = {messages_[k].codes + code_bytes(codec_, share.first),
                messages_[k].scales + share.first / block_, messages_[k].weight};
    }
    return row;
  }

 private:
  const QuantMessage* messages_;
  std::size_t m_;
  Codec codec_;
  std::size_t block_;
  Rows<QuantMessage> rows_;
};

/// Calls kernel(share, draw or null, codes, scales) on shares of n elements that touch `bytes` each; returns
/// the sum of the results. Without the GIL.
template <class Kernel>
std::size_t encode_shares(std::size_t n, std::size_t bytes, Codec codec, std::size_t block, const Draw* draw,
                          const Message& to, const Kernel& kernel) {
  return Shares(n, bytes, block_unit(block, n)).count([&](const Share& share) {
    const Draw from = draw != nullptr ? Draw{draw->key, draw->first + share.first} : Draw{};
    const CodesAt at(to, codec, block, share);
    return kernel(share, draw != nullptr ? &from : nullptr, at.codes, at.scales);
  });
}

}  // namespace pydec::bindings
