// SPDX-License-Identifier: MIT
#include "core/base/config_io.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"

namespace bitnet {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kMaxJsonDepth = 64;

// "the string 'abc'", "the number 3.5", "null": a JSON value as messages name it.
std::string describe(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case json::value_t::string:
      return "the string " + printable(value.get_ref<const std::string&>());
    case json::value_t::number_integer:
    case json::value_t::number_unsigned:
    case json::value_t::number_float:
      return value.dump();
    case json::value_t::array:
      return fmt::format("an array of {} values", value.size());
    default:
      return "an object";
  }
}

std::string quoted_list(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "'" : ", '") + word + "'";
  return text;
}

// "; did you mean 'x'?", or nothing.
std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string nearest = nearest_word(word, candidates);
  return nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest);
}

class FieldReader final : public FieldVisitor {
 public:
  FieldReader(const json& object, const std::string& where) : object_(object), where_(where) {}

  const std::vector<std::string>& keys() const { return keys_; }

  void field(const char* key, bool& value, const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_boolean()) refuse(key, "true or false", *found);
    value = found->get<bool>();
  }

  void field(const char* key, std::int64_t& value, std::int64_t min, std::int64_t max,
             const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    const std::string expected = range("an integer", min, max);
    std::int64_t number = 0;
    if (found->is_number_unsigned()) {
      const auto wide = found->get<std::uint64_t>();
      if (wide > static_cast<std::uint64_t>(INT64_MAX)) refuse(key, expected, *found);
      number = static_cast<std::int64_t>(wide);
    } else if (found->is_number_integer()) {
      number = found->get<std::int64_t>();
    } else if (found->is_number_float()) {  // 3.0 or 1e6; up to 2^53 the double is the exact number
      const double wide = found->get<double>();
      if (!(std::abs(wide) <= 0x1p53) || wide != std::trunc(wide)) refuse(key, expected, *found);
      number = static_cast<std::int64_t>(wide);
    } else {
      refuse(key, expected, *found);
    }
    if (number < min || number > max) refuse(key, expected, *found);
    value = number;
  }

  void field(const char* key, double& value, double min, double max, const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    const std::string expected = range("a number", min, max);
    if (!found->is_number()) refuse(key, expected, *found);
    const double number = found->get<double>();
    if (!std::isfinite(number) || number < min || number > max) refuse(key, expected, *found);
    value = number;
  }

  void field(const char* key, std::string& value, const std::vector<std::string>& choices,
             const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    const std::string expected = choices.empty() ? "a string" : "one of " + quoted_list(choices);
    if (!found->is_string()) refuse(key, expected, *found);
    const auto& text = found->get_ref<const std::string&>();
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      refuse(key, expected, *found, suggestion(text, choices));
    }
    value = text;
  }

  void field(const char* key, std::vector<double>& value, const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_array()) refuse(key, "an array of numbers", *found);
    std::vector<double> numbers;
    for (const json& element : *found) {
      if (!element.is_number() || !std::isfinite(element.get<double>())) {
        refuse(key, "an array of numbers", element);
      }
      numbers.push_back(element.get<double>());
    }
    value = std::move(numbers);
  }

 private:
  const json* find(const char* key) {
    keys_.emplace_back(key);
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  template <typename Number>
  static std::string range(const char* noun, Number min, Number max) {
    using Limits = std::numeric_limits<Number>;
    const bool below = min > Limits::lowest(), above = max < Limits::max();
    if (below && above) return fmt::format("{} from {} to {}", noun, min, max);
    if (below) return fmt::format("{} of at least {}", noun, min);
    if (above) return fmt::format("{} of at most {}", noun, max);
    return noun;
  }

  [[noreturn]] void refuse(const char* key, const std::string& expected, const json& found,
                           const std::string& hint = "") const {
    throw UsageError(fmt::format("{}: {}: expected {}, found {}{}", where_, key, expected,
                                 describe(found), hint));
  }

  const json& object_;
  const std::string& where_;
  std::vector<std::string> keys_;
};

class FieldWriter final : public FieldVisitor {
 public:
  ordered_json object = ordered_json::object();
  void field(const char* key, bool& value, const char*) override { object[key] = value; }
  void field(const char* key, std::int64_t& value, std::int64_t, std::int64_t,
             const char*) override {
    object[key] = value;
  }
  void field(const char* key, double& value, double, double, const char*) override {
    object[key] = value;
  }
  void field(const char* key, std::string& value, const std::vector<std::string>&,
             const char*) override {
    object[key] = value;
  }
  void field(const char* key, std::vector<double>& value, const char*) override {
    object[key] = value;
  }
};

// Characters of a text, counted as the parser takes them, so that our own checks know where they
// are.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* position = nullptr;
  std::size_t* taken = nullptr;

  reference operator*() const { return *position; }
  CountingIterator& operator++() {
    ++position;
    ++*taken;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator old = *this;
    ++*this;
    return old;
  }
  bool operator==(const CountingIterator& other) const { return position == other.position; }
  bool operator!=(const CountingIterator& other) const { return position != other.position; }
};

// The library's text without its "[json.exception.parse_error.101] " and of bounded length.
std::string parser_message(const std::string& what) {
  const std::size_t end = what.find("] ");
  std::string text = what.substr(end == std::string::npos ? 0 : end + 2, 200);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  }
  return text;
}

}  // namespace

void read_fields(const json& object, const std::string& where, const VisitFields& visit,
                 UnknownKeys unknown) {
  if (!object.is_object()) {
    throw UsageError(fmt::format("{}: expected an object, found {}", where, describe(object)));
  }
  FieldReader reader(object, where);
  visit(reader);
  if (unknown == UnknownKeys::ignore) return;
  for (const auto& item : object.items()) {
    const auto& keys = reader.keys();
    if (item.key() == "$schema" || std::find(keys.begin(), keys.end(), item.key()) != keys.end()) {
      continue;
    }
    throw UsageError(fmt::format("{}: unknown key {}{}", where, printable(item.key()),
                                 suggestion(item.key(), keys)));
  }
}

ordered_json write_fields(const VisitFields& visit) {
  FieldWriter writer;
  visit(writer);
  return std::move(writer.object);
}

json parse_json(std::string_view text, const std::string& path, JsonComments comments,
                std::uint64_t first_byte) {
  std::size_t taken = 0;
  std::vector<std::set<std::string>> open_objects;  // the keys seen in each
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
        open_objects.emplace_back();
        [[fallthrough]];
      case json::parse_event_t::array_start:
        if (depth >= kMaxJsonDepth) {
          throw FormatError(path, first_byte + taken,
                            fmt::format("JSON nested more than {} levels deep", kMaxJsonDepth));
        }
        break;
      case json::parse_event_t::object_end:
        open_objects.pop_back();
        break;
      case json::parse_event_t::key: {
        const auto& key = value.get_ref<const std::string&>();
        if (!open_objects.back().insert(key).second) {
          throw FormatError(path, first_byte + taken,
                            fmt::format("the key {} occurs twice", printable(key)));
        }
        break;
      }
      default:
        break;
    }
    return true;
  };
  const CountingIterator first{text.data(), &taken}, last{text.data() + text.size(), &taken};
  try {
    return json::parse(first, last, check, /*allow_exceptions=*/true,
                       comments == JsonComments::allow);
  } catch (const json::exception& error) {
    throw FormatError(path, first_byte + taken, "not valid JSON: " + parser_message(error.what()));
  }
}

std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  std::string nearest;
  std::size_t nearest_distance = word.size() / 2 + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t longer = std::max(word.size(), candidate.size());
    if (longer - std::min(word.size(), candidate.size()) >= nearest_distance) continue;
    // Levenshtein, one row at a time: row[j] is the distance of word[0, i) to candidate[0, j).
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t replaced = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < nearest_distance) {
      nearest_distance = row.back();
      nearest = candidate;
    }
  }
  return nearest;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  std::string result = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += c;
    }
  }
  return result + (text.size() > kLongest ? "…'" : "'");
}

}  // namespace bitnet
