// SPDX-License-Identifier: MIT
// From a file to the first token, as `bitnet generate` goes: what one fresh process measures, and
// the file that it reads.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>

#include "core/model/transformer.h"

namespace bitnet {

// Of the file that write_bench_model() writes, at most.
std::int64_t bench_model_bytes(const Transformer& model);

// Writes `model` where load_first_token() finds it: packed with its floats as bf16, or latent where
// it is not quantised. Returns the size of the model file.
std::int64_t write_bench_model(Transformer& model, const std::filesystem::path& folder);

struct LoadResult {
  std::chrono::steady_clock::time_point first_token;  // when it was there
  std::int64_t peak_memory_bytes = 0;  // of the process, pages of the mapped file included
  std::int64_t head_bytes = 0;         // of the head as it is multiplied; see head_bytes()
  std::int64_t kv_cache_bytes = 0;
};

// load_model() and a Generator that writes one token after "a". To be called first in a process.
LoadResult load_first_token(Backend& backend, const std::filesystem::path& folder,
                            HeadPrecision head, DType kv_cache);

}  // namespace bitnet
