// SPDX-License-Identifier: MIT
// What GGUF calls our models' tensors, and what the architectures of its readers compute.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitnet {

// An architecture as llama.cpp and its relatives run it: the same blocks as ours, with RMSNorm with a
// gain and a gated feed-forward.
struct GgufArch {
  const char* name;
  const char* profile;     // of ours, that computes the same
  const char* hidden_act;  // the only one that today's readers compute
  bool sub_norms;
  bool scale_tensors;   // optional "….scale" tensors multiply a projection's result
  bool output_tensor;   // a head of its own may be there
  bool permuted;        // rows of q and k are in the order of interleaved rotary embeddings
  bool own_head_width;  // heads x head_dim may differ from the hidden size
};
// Null where we compute no such architecture.
const GgufArch* find_gguf_arch(std::string_view name);
std::string gguf_arch_names();  // for messages: "bitnet, bitnet-b1.58, …"

// "model.layers.0.self_attn.q_proj.weight" -> "blk.0.attn_q.weight". Throws ContractError for a name
// that list_tensors() does not make.
std::string gguf_tensor_name(std::string_view ours);
// "blk.0.attn_q.weight" -> "blk.0.attn_q.scale"
std::string gguf_scale_name(std::string_view weight);

// Where row `row` of our q_proj or k_proj is in a permuted one: within a head of width E, our row
// j * E / 2 + i (j = 0, 1) is row 2 * i + j.
std::int64_t gguf_permuted_row(std::int64_t row, std::int64_t head_dim);
// Does the architecture permute this projection of ours ("….q_proj.weight")?
bool gguf_permutes(const GgufArch& arch, std::string_view ours);

// What no key of the format says about a quantised model; other readers ignore these.
inline constexpr const char* kGgufLinearKey = "bitnet_native.linear";                   // string
inline constexpr const char* kGgufActivationBitsKey = "bitnet_native.activation_bits";  // u32
inline constexpr const char* kGgufWeightGroupKey = "bitnet_native.weight_group_size";   // u32

}  // namespace bitnet
