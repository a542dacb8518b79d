// SPDX-License-Identifier: MIT
// The papers' estimate of the arithmetic energy of matrix products (2310.11453, used again by
// 2402.17764): additions and multiplications are counted and priced, memory traffic is not.
#pragma once

#include <cstdint>

#include "core/model/model_config.h"

namespace bitnet {

enum class Process : std::uint8_t { nm45, nm7 };
enum class Arithmetic : std::uint8_t { fp32, fp16, int8 };

// Energy of one operation, in picojoule: the table of 2310.11453.
double add_picojoule(Process process, Arithmetic arithmetic);
double multiply_picojoule(Process process, Arithmetic arithmetic);

// Operations of one sequence of `tokens` tokens.
struct OperationCounts {
  double projection_macs = 0;  // multiply-adds of the blocks' projections: tokens · Σ N · K
  // Multiplications that BitNet leaves of them, scaling inputs and outputs: tokens · Σ (K + N)
  double projection_scalings = 0;
  double attention_macs = 0;  // q·kᵀ and p·v: never quantised
};

// Counted as the paper's own figures must have been, since only so do they come out as printed:
// every query against every key, no causal saving; embedding, head, norms and softmax left out.
OperationCounts count_operations(const ModelConfig& config, std::int64_t tokens);

struct Energy {
  double multiply_joule = 0, add_joule = 0;
  double total() const { return multiply_joule + add_joule; }
};

// Every product, of [m, n] by [n, p], in floating point:
//   E_add = m n p · ê_add,  E_mul = m n p · ê_mul    (the paper writes n - 1 additions)
Energy float_energy(const OperationCounts& counts, Process process, Arithmetic arithmetic);
// Projections with 1-bit or ternary weights need only additions, of int8 when activations are
// quantised, else of fp16; their scalings and attention are in fp16:
//   E_add = m n p · ê_add,  E_mul = (m n + m p) · ê_mul
Energy bitnet_energy(const OperationCounts& counts, Process process, bool quantized_activations);

}  // namespace bitnet
