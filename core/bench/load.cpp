// SPDX-License-Identifier: MIT
#include "core/bench/load.h"

#include "core/base/machine.h"
#include "core/bench/workloads.h"
#include "core/checkpoint/model_file.h"
#include "core/generate/generator.h"

namespace bitnet {
namespace {

constexpr std::int64_t kHeaderBytes = 1 << 20;  // more than names, shapes and paddings take

}  // namespace

std::int64_t bench_model_bytes(const Transformer& model) {
  std::int64_t bytes = kHeaderBytes;
  for (const Parameter& p : model.parameters().all())
    bytes += p.packed ? p.packed.bytes() + p.weight_scale.bytes() : p.value.bytes();
  return bytes;
}

std::int64_t write_bench_model(Transformer& model, const std::filesystem::path& folder) {
  if (model.config().quantized())
    save_packed(model, folder, FloatDtype::bf16, /*force=*/false);
  else
    save_latent(model, folder);
  return static_cast<std::int64_t>(std::filesystem::file_size(folder / "model.safetensors"));
}

LoadResult load_first_token(Backend& backend, const std::filesystem::path& folder,
                            HeadPrecision head, DType kv_cache) {
  const std::unique_ptr<Transformer> model = load_model(backend, folder);
  model->use_head(head);
  GenerateOptions options;
  options.max_new_tokens = 1;
  options.sampler.greedy = true;
  options.kv_cache = kv_cache;
  Generator generator(*model, options);
  generator.generate("a", [](std::string_view) {});
  return {.first_token = std::chrono::steady_clock::now(),
          .peak_memory_bytes = peak_resident_bytes(),
          .head_bytes = head_bytes(model->config(), head),
          .kv_cache_bytes = kv_cache_bytes(model->config(), model->config().max_position_embeddings,
                                           options.kv_cache)};
}

}  // namespace bitnet
