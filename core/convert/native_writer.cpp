// SPDX-License-Identifier: MIT
#include "core/convert/native_writer.h"

#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "core/checkpoint/folder_in_progress.h"
#include "core/checkpoint/model_metadata.h"
#include "core/convert/hugging_face_config.h"

namespace bitnet {

using nlohmann::ordered_json;

ConversionReport write_native(const ModelReader& reader, const std::filesystem::path& folder,
                              const FolderOptions& options) {
  FolderInProgress output(folder, options.force);
  const auto tokenizer = reader.tokenizer();
  ordered_json config = config_to_json(reader.config(), reader.form(), common_float_dtype(reader));
  set_special_token_ids(*tokenizer, config);
  std::map<std::string, std::string> metadata = {{kConfigKey, config.dump()},
                                                 {kFormatKey, kFormatVersion}};
  // What was converted can be converted again, so --force may replace it; a copy of a training's
  // own weights stays one.
  if (!reader.is_native()) metadata[kSourceKey] = reader.description();
  metadata.merge(reader.metadata());  // what else a native file knows, such as its data
  metadata.erase("format");           // write_safetensors() adds it

  TensorStream stream(reader, FloatDtype::f32, options.progress);
  write_safetensors(output.path() / "model.safetensors", stream.tensors(), metadata);
  write_file(output.path() / "config.json", config.dump(2) + "\n");
  write_generation_config(*tokenizer, output.path());
  tokenizer->save(output.path(), reader.config().max_position_embeddings);
  ConversionReport report = stream.report();
  report.bytes = std::filesystem::file_size(output.path() / "model.safetensors");
  if (options.verify) options.verify(output.path());
  output.move_to_target();
  return report;
}

void write_generation_config(const Tokenizer& tokenizer, const std::filesystem::path& folder) {
  ordered_json object;
  set_special_token_ids(tokenizer, object);
  write_file(folder / "generation_config.json", object.dump(2) + "\n");
}

}  // namespace bitnet
