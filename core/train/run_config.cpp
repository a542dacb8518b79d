// SPDX-License-Identifier: MIT
#include "core/train/run_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/config_io.h"
#include "core/base/error.h"
#include "core/checkpoint/model_config_json.h"

namespace bitnet {
namespace {

using nlohmann::json;

const std::vector<std::string> kSections = {"model", "data", "train"};

VisitFields fields_of(RunConfig& config, const std::string& section) {
  return [&config, &section](FieldVisitor& visitor) {
    if (section == "model") config.model.visit_fields(visitor);
    if (section == "data") config.data.visit_fields(visitor);
    if (section == "train") config.train.visit_fields(visitor);
  };
}

void check_section(const std::string& name, const std::string& where) {
  if (std::find(kSections.begin(), kSections.end(), name) != kSections.end()) return;
  const std::string nearest = nearest_word(name, kSections);
  throw UsageError(fmt::format("{}: unknown section {}; {}", where, printable(name),
                               nearest.empty() ? "there are model, data and train"
                                               : fmt::format("did you mean '{}'?", nearest)));
}

// JSON holds only UTF-8, and the config is written as JSON.
const std::string& checked_utf8(const std::string& text, const std::string& where) {
  try {
    static_cast<void>(json(text).dump());
  } catch (const json::exception&) {
    throw UsageError(where + ": the value is not valid UTF-8");
  }
  return text;
}

// Lays "section.key=value" over the document. The key and the value's type are checked here, so
// that a message names the setting.
void apply_setting(const std::string& setting, json& document) {
  const auto equals = setting.find('=');
  const auto dot = setting.substr(0, equals).find('.');
  const std::string where = "--set " + printable(setting);
  if (equals == std::string::npos || dot == std::string::npos)
    throw UsageError(where + ": expected section.key=value, for example train.max_steps=100");
  const std::string section = setting.substr(0, dot),
                    key = setting.substr(dot + 1, equals - dot - 1),
                    text = setting.substr(equals + 1);
  check_section(section, where);
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) value = checked_utf8(text, where);

  RunConfig scratch;
  read_fields(json{{key, value}}, where, fields_of(scratch, section));
  document[section][key] = std::move(value);
}

// The text of one field, for comparing and for messages.
json as_json(RunConfig& config, const std::string& section) {
  return json(write_fields(fields_of(config, section)));
}

bool may_change(const std::string& section, const std::string& key) {
  if (section == "data") return key == "path";
  if (section == "model") return false;
  // The two factors of a step's sequences are compared as their product.
  return key != "init" && key != "seed" && key != "sequence_length";
}

// A profile stands for other keys, the next two say how weights begin and are trained.
bool shapes_model(const std::string& key, const ModelConfig& initial) {
  if (key == "profile" || key == "dropout" || key == "initializer_range") return false;
  const bool quantises = key == "linear" || key == "weight_scale" || key == "weight_group_size" ||
                         key == "activation_bits";
  return initial.quantized() || !quantises;
}

}  // namespace

void RunConfig::validate() const {
  model.validate();
  data.validate();
  train.validate();
  if (data.tokenizer.empty() && train.init.empty()) model.require_token_ids(kByteValues);
  if (train.sequence_length > model.max_position_embeddings)
    throw UsageError(
        fmt::format("train.sequence_length is {}, more than model.max_position_embeddings = {}",
                    train.sequence_length, model.max_position_embeddings));
  if (train.quant_warmup_steps > 0 && !model.quantized())
    throw UsageError(
        "train.quant_warmup_steps needs a quantised model, but model.linear is 'float'");
}

RunConfig read_run_config(std::string_view text, const std::string& path,
                          std::span<const std::string> settings, const InitialModel& initial) {
  json document = parse_json(text, path);
  if (!document.is_object())
    throw UsageError(path + ": expected an object with the sections model, data and train");
  document.erase("$schema");
  for (const auto& [section, values] : document.items()) {
    check_section(section, path);
    if (!values.is_object())
      throw UsageError(fmt::format("{}: {}: expected an object", path, section));
  }
  for (const std::string& setting : settings) apply_setting(setting, document);

  RunConfig config;
  const auto read_section = [&](const std::string& section) {
    if (document.contains(section))
      read_fields(document[section], path + ": " + section, fields_of(config, section));
  };
  read_section("train");
  std::optional<ModelConfig> begins_with;
  if (initial && !config.train.init.empty())
    config.model = begins_with.emplace(resolved(initial(config.train.init)));
  const auto model = document.find("model");
  if (model != document.end()) {
    const auto profile = model->find("profile");
    const auto* name = profile == model->end() ? nullptr : profile->get_ptr<const std::string*>();
    const auto& names = profile_names();  // any other is refused below, with its place
    if (name != nullptr && std::find(names.begin(), names.end(), *name) != names.end())
      apply_profile(*name, config.model);
  }
  read_section("model");
  read_section("data");
  if (begins_with) check_initial_model(*begins_with, config.model, config.train.init);
  if (config.train.sequence_length == 0)
    config.train.sequence_length = config.model.max_position_embeddings;
  config.validate();
  return config;
}

std::string write_run_config(const RunConfig& config) {
  RunConfig copy = config;  // visitors take mutable fields
  nlohmann::ordered_json document;
  for (const std::string& section : kSections)
    document[section] = write_fields(fields_of(copy, section));
  return document.dump(2) + "\n";
}

void check_initial_model(const ModelConfig& initial, const ModelConfig& model,
                         const std::string& path) {
  RunConfig from{resolved(initial), {}, {}}, to{resolved(model), {}, {}};
  const json has = as_json(from, "model"), wanted = as_json(to, "model");
  // In the order in which the fields are listed: the first difference explains those after it.
  const auto fields = write_fields(fields_of(from, kSections[0]));
  for (const auto& [key, value] : fields.items()) {
    if (!shapes_model(key, initial) || has.at(key) == wanted.at(key)) continue;
    throw UsageError(fmt::format(
        "model.{} is {}, but {} of {}, with which the run begins (train.init); leave the key out, "
        "or begin with another model",
        key, wanted.at(key).dump(), has.at(key).dump(), path));
  }
}

namespace {

// Calls differs(section, key, was, is) for each key whose value is another one.
template <typename Differs>
void for_each_difference(const RunConfig& before, const RunConfig& now, const Differs& differs) {
  RunConfig old_config = before, new_config = now;  // visitors take mutable fields
  for (const std::string& section : kSections) {
    const json was = as_json(old_config, section), is = as_json(new_config, section);
    for (const auto& [key, value] : was.items())
      if (value != is.at(key)) differs(section, key, value.dump(), is.at(key).dump());
  }
}

}  // namespace

void check_resumable(const RunConfig& before, const RunConfig& now) {
  const auto refuse = [](const std::string& key, const std::string& was, const std::string& is) {
    throw UsageError(fmt::format(
        "{} was {} in this run and cannot become {} on a resume; start a new run for it "
        "(only train.* and data.path may change, of train.* not the seed, not init and not "
        "what a step reads)",
        key, was, is));
  };
  for_each_difference(before, now,
                      [&](const std::string& section, const std::string& key,
                          const std::string& was, const std::string& is) {
                        if (!may_change(section, key)) refuse(section + "." + key, was, is);
                      });
  const std::int64_t was = before.train.sequences_per_step(), is = now.train.sequences_per_step();
  if (was != is)
    refuse("train.per_device_train_batch_size x train.gradient_accumulation_steps",
           std::to_string(was), std::to_string(is));
}

std::vector<std::string> describe_changes(const RunConfig& before, const RunConfig& now) {
  std::vector<std::string> changes;
  for_each_difference(
      before, now,
      [&](const std::string& section, const std::string& key, const std::string& was,
          const std::string& is) {
        changes.push_back(fmt::format("{}.{} was {}, now it is {}", section, key, was, is));
      });
  return changes;
}

}  // namespace bitnet
