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

}  // namespace pydec::bindings
