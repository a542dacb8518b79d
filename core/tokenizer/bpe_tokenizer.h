// SPDX-License-Identifier: MIT
// Byte-level BPE: added tokens are found, what lies between is cut into words, and the bytes of a
// word are merged.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/tokenizer/tokenizer.h"

namespace bitnet {

// make_bpe_tokenizer() for data that was read from files; save() writes those (name, content) as
// they are.
std::shared_ptr<const Tokenizer> make_bpe_tokenizer(BpeData data, const std::string& path,
                                                    std::map<std::string, std::string> files);

}  // namespace bitnet
