// SPDX-License-Identifier: MIT
// What must not change a single bit of the CPU backend's operations: the instruction set and the
// number of threads.
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"
#include "tests/support/threads.h"

namespace bitnet {
namespace {

using Floats = std::vector<float>;

// Results of several tensors, one after the other.
struct Results {
  Backend& backend;
  Floats values;
  void append(ConstTensorView x) {
    const Floats more = test::floats_of(backend, x);
    values.insert(values.end(), more.begin(), more.end());
  }
};

Tensor random_tensor(Backend& backend, const Shape& shape, std::uint32_t seed,
                     double deviation = 1.0) {
  return test::to_device(backend, shape, test::random_numbers(seed, shape.elements(), deviation));
}

Tensor empty_tensor(Backend& backend, const Shape& shape) {
  return backend.make_tensor(DType::f32, shape);
}

Floats linear_results(Backend& be) {
  Results r{be, {}};
  const std::int64_t rows = 530, inputs = 100, outputs = 300;  // several tiles of each kind
  Tensor x = random_tensor(be, {rows, inputs}, 1), w = random_tensor(be, {outputs, inputs}, 2);
  Tensor dy = random_tensor(be, {rows, outputs}, 3), dx = random_tensor(be, {rows, inputs}, 4);
  Tensor dw = random_tensor(be, {outputs, inputs}, 5), y = empty_tensor(be, {rows, outputs});
  be.linear(x, w, y);
  r.append(y);
  for (const bool accumulate : {true, false}) {
    be.linear_backward(x, w, dy, dx, accumulate, dw);
    r.append(dx);
    r.append(dw);
  }
  return r.values;
}

Floats bit_linear_backward_results(Backend& be) {
  Results r{be, {}};
  const std::int64_t rows = 300, inputs = 128, outputs = 260;
  Tensor x = random_tensor(be, {rows, inputs}, 6), w = random_tensor(be, {outputs, inputs}, 7);
  Tensor codes = be.make_tensor(DType::i8, {rows, inputs}), act_scale = empty_tensor(be, {rows});
  Tensor packed = be.make_tensor(DType::u8, {outputs / 4, inputs}),
         weight_scale = empty_tensor(be, {1});
  Tensor dy = random_tensor(be, {rows, outputs}, 8), dx = empty_tensor(be, {rows, inputs});
  Tensor dw = random_tensor(be, {outputs, inputs}, 9);
  be.quantize_activations(x, codes, act_scale);
  be.quantize_weights({}, w, packed, weight_scale, {});
  be.bit_linear_backward(codes, act_scale, {packed, weight_scale, dy, dw}, GradientPrecision::fp32,
                         dx);
  r.append(dx);
  r.append(dw);
  return r.values;
}

// One product with a single scale and one with grouped ones, of more than two tiles of tokens.
Floats int8_backward_results(Backend& be) {
  Results r{be, {}};
  const std::int64_t rows = 530, inputs = 128, outputs = 132;
  Tensor x = random_tensor(be, {rows, inputs}, 41), w = random_tensor(be, {outputs, inputs}, 42);
  Tensor codes = be.make_tensor(DType::i8, {rows, inputs}), act_scale = empty_tensor(be, {rows});
  Tensor packed = be.make_tensor(DType::u8, {outputs / 4, inputs}), scale = empty_tensor(be, {1}),
         grouped = be.make_tensor(DType::u8, {outputs / 4, inputs}),
         group_scale = empty_tensor(be, {outputs, 2});
  Tensor dy = random_tensor(be, {rows, outputs}, 43), dx = empty_tensor(be, {rows, inputs});
  Tensor dw = random_tensor(be, {outputs, inputs}, 44),
         grouped_dw = random_tensor(be, {outputs, inputs}, 45);
  be.quantize_activations(x, codes, act_scale);
  be.quantize_weights({}, w, packed, scale, {});
  be.quantize_weights({LinearKind::b158, ScaleMeasure::absmean, 64}, w, grouped, group_scale, {});
  const BitLinearGradient gradients[] = {{packed, scale, dy, dw},
                                         {grouped, group_scale, dy, grouped_dw}};
  be.bit_linear_backward(codes, act_scale, gradients, GradientPrecision::int8, dx);
  for (const Tensor* t : {&dx, &dw, &grouped_dw}) r.append(*t);
  return r.values;
}

Floats int8_linear_results(Backend& be) {
  Results r{be, {}};
  const std::int64_t rows = 130, inputs = 256, outputs = 1500;  // several tiles both ways
  Tensor x = random_tensor(be, {rows, inputs}, 46), w = random_tensor(be, {outputs, inputs}, 47);
  Tensor codes = be.make_tensor(DType::i8, {rows, inputs}), act_scale = empty_tensor(be, {rows});
  Tensor weights = be.make_tensor(DType::i8, {outputs, inputs}),
         row_scale = empty_tensor(be, {outputs}), y = empty_tensor(be, {rows, outputs});
  be.quantize_activations(x, codes, act_scale);
  be.quantize_activations(w, weights, row_scale);
  be.int8_linear(codes, act_scale, weights, row_scale, y);
  r.append(y);
  return r.values;
}

Floats fused_results(Backend& be) {
  Results r{be, {}};
  const Shape shape{150, 200};
  Tensor gate = random_tensor(be, shape, 48, 2.0), up = random_tensor(be, shape, 49),
         dy = random_tensor(be, shape, 50), gain = random_tensor(be, {200}, 51);
  Tensor codes = be.make_tensor(DType::i8, shape), back = empty_tensor(be, shape),
         act_scale = empty_tensor(be, {150}), stats = empty_tensor(be, {150, 2});
  Tensor dgate = empty_tensor(be, shape), dup = empty_tensor(be, shape),
         dgain = random_tensor(be, {200}, 52);
  const auto append_quantized = [&] {
    be.dequantize_activations(codes, act_scale, back);
    for (const Tensor* t : {&back, &act_scale, &stats}) r.append(*t);
  };
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    const NormArguments norm{kind, gain, 1e-5f};
    be.norm_quantize(norm, gate, codes, act_scale, stats);
    append_quantized();
    for (const Activation activation : {Activation::silu, Activation::relu2, Activation::gelu}) {
      be.gated_activation_quantize(activation, gate, up, norm, codes, act_scale, stats);
      append_quantized();
      be.gated_activation_norm_backward(activation, gate, up, norm, stats, dy, dgate, dup, dgain);
      for (const Tensor* t : {&dgate, &dup, &dgain}) r.append(*t);
    }
  }
  return r.values;
}

Floats norm_results(Backend& be) {
  Results r{be, {}};
  const std::int64_t rows = 150, width = 200;
  Tensor x = random_tensor(be, {rows, width}, 10), gain = random_tensor(be, {width}, 11);
  Tensor dy = random_tensor(be, {rows, width}, 12), y = empty_tensor(be, {rows, width});
  Tensor stats = empty_tensor(be, {rows, 2}), dx = empty_tensor(be, {rows, width});
  Tensor dgain = random_tensor(be, {width}, 13);
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    be.norm(kind, x, gain, 1e-5f, y, stats);
    be.norm_backward(kind, x, gain, stats, dy, dx, false, dgain);
    for (const Tensor* t : {&y, &stats, &dx, &dgain}) r.append(*t);
  }
  return r.values;
}

Floats attention_results(Backend& be) {
  Results r{be, {}};
  const AttentionShape s{
      .batch = 2, .queries = 140, .keys = 140, .heads = 4, .kv_heads = 2, .head_dim = 32};
  const Shape q_shape{2, 140, 4, 32}, kv_shape{2, 140, 2, 32};
  Tensor q = random_tensor(be, q_shape, 14), k = random_tensor(be, kv_shape, 15),
         v = random_tensor(be, kv_shape, 16);
  Tensor dout = random_tensor(be, q_shape, 17), table = random_tensor(be, {150, 32}, 18);
  Tensor out = empty_tensor(be, q_shape), logsumexp = empty_tensor(be, {2, 4, 140}),
         dq = empty_tensor(be, q_shape);
  Tensor dk = empty_tensor(be, kv_shape), dv = empty_tensor(be, kv_shape);
  be.rope(q, table, 10, RopeDirection::forward);
  be.rope(k, table, 10, RopeDirection::backward);
  be.attention(s, q, k, v, out, logsumexp);
  be.attention_backward(s, q, k, v, out, logsumexp, dout, dq, dk, dv);
  for (const Tensor* t : {&q, &k, &out, &logsumexp, &dq, &dk, &dv}) r.append(*t);
  return r.values;
}

Floats elementwise_results(Backend& be) {
  Results r{be, {}};
  const Shape shape{300, 150};  // three stretches
  Tensor gate = random_tensor(be, shape, 19, 3.0), up = random_tensor(be, shape, 20),
         dy = random_tensor(be, shape, 21);
  Tensor y = empty_tensor(be, shape), dgate = empty_tensor(be, shape),
         dup = empty_tensor(be, shape);
  for (const Activation activation : {Activation::silu, Activation::relu2, Activation::gelu}) {
    be.gated_activation(activation, gate, up, y);
    be.gated_activation_backward(activation, gate, up, dy, dgate, dup);
    for (const Tensor* t : {&y, &dgate, &dup}) r.append(*t);
  }
  be.add(gate, up, y);
  r.append(y);
  be.dropout(gate, 0.3, {1, RandomPurpose::dropout, 2}, 40, y);
  r.append(y);
  Tensor tokens = test::to_device(be, {300}, test::random_tokens(22, 300, 40));
  Tensor table = random_tensor(be, {40, 150}, 23);
  be.embedding(tokens, table, y);
  r.append(y);
  be.embedding_backward(tokens, dy, table);
  r.append(table);
  return r.values;
}

Floats loss_results(Backend& be) {
  Results r{be, {}};
  Tensor logits = random_tensor(be, {200, 256}, 24, 4.0), loss = empty_tensor(be, {200});
  Tensor targets = test::to_device(be, {200}, test::random_tokens(25, 200, 256));
  Tensor gradient = empty_tensor(be, {200, 256}), m = random_tensor(be, {200, 256}, 26),
         v = be.make_tensor(DType::f32, {200, 256});
  be.cross_entropy(logits, targets, loss, 0.01f, gradient);
  be.adamw({.learning_rate = 1e-3, .weight_decay = 0.1, .step = 3, .grad_scale = 0.7}, gradient,
           logits, m, v);
  for (const Tensor* t : {&loss, &gradient, &logits, &m, &v}) r.append(*t);
  r.values.push_back(static_cast<float>(be.sum(logits)));
  r.values.push_back(static_cast<float>(be.sum_of_squares(logits)));
  return r.values;
}

struct Family {
  const char* name;
  Floats (*results)(Backend&);
};

TEST_CASE("float operations give the same bits on every ISA and for any number of threads") {
  const Family family = GENERATE(
      Family{"linear", linear_results}, Family{"bit_linear_backward", bit_linear_backward_results},
      Family{"int8 backward", int8_backward_results}, Family{"int8_linear", int8_linear_results},
      Family{"fused", fused_results}, Family{"norm", norm_results},
      Family{"attention", attention_results}, Family{"elementwise", elementwise_results},
      Family{"loss", loss_results});
  INFO(family.name);
  const Floats expected = family.results(*make_cpu_backend(1, "scalar"));
  for (const std::string& isa : available_cpu_isas()) {
    for (const int threads : test::team_sizes({1, 2, 3})) {
      INFO(isa << ", " << threads << " threads");
      CHECK(family.results(*make_cpu_backend(threads, isa)) == expected);
    }
  }
}

}  // namespace
}  // namespace bitnet
