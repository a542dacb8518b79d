// SPDX-License-Identifier: MIT
// JSON in and out for structs that list their fields with a FieldVisitor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "core/base/field_visitor.h"

namespace bitnet {

// For read_text_file(): configurations and states are far smaller.
inline constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

using VisitFields = std::function<void(FieldVisitor&)>;

enum class UnknownKeys { refuse, ignore };

// Fields present in `object` overwrite; absent ones keep their value. `where` names the object in
// messages, e.g. "configs/a.json: model". Throws UsageError for an unknown key (naming the nearest
// valid one), a wrong type or a value out of range, always saying what was expected.
void read_fields(const nlohmann::json& object, const std::string& where, const VisitFields& visit,
                 UnknownKeys unknown = UnknownKeys::refuse);

// Every field, in listed order.
nlohmann::ordered_json write_fields(const VisitFields& visit);

// JSON text; at most 64 levels deep, no key twice in one object. Throws FormatError with path and offset; `path` and `first_byte` (the
// place of the text in its file) are only used in messages.
enum class JsonComments { allow, refuse };
nlohmann::json parse_json(std::string_view text, const std::string& path,
                          JsonComments comments = JsonComments::allow,
                          std::uint64_t first_byte = 0);

// The candidate with the least edit distance to `word`, or "" when none is near (distance > half of
// the word).
std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates);

// `text` from outside made fit for a one-line message: in single quotes, control and non-ASCII
// characters escaped, cut when long.
std::string printable(std::string_view text);

}  // namespace bitnet
