// SPDX-License-Identifier: MIT
// Every table of fp32 kernels against the scalar table, bit for bit, and exp against double.
// Depends on bitnet_kernels alone.
#include "core/cpu/float_kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/base/random.h"
#include "core/cpu/integer_kernels.h"
#include "core/cpu/lanes_constants.h"
#include "tests/cpu/available_isas.h"
#include "tests/support/catch.h"

namespace bitnet::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

using Floats = std::vector<float>;

const FloatKernels& generated_kernels() {
  const Isa isa = GENERATE(from_range(test::available_isas()));
  const FloatKernels* kernels = float_kernels(isa);
  REQUIRE(kernels != nullptr);
  return *kernels;
}

Floats random_floats(std::int64_t count, unsigned seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Floats x(static_cast<std::size_t>(count));
  for (auto& v : x) v = normal(random);
  return x;
}

Floats zeros(std::int64_t count) { return Floats(static_cast<std::size_t>(count)); }

// Comparable with == even where there are signed zeros; all NaNs count as one, because their
// payload is the processor's choice.
std::vector<std::uint32_t> bits_of(const Floats& x) {
  std::vector<std::uint32_t> bits;
  for (const float v : x) bits.push_back(std::bit_cast<std::uint32_t>(std::isnan(v) ? kNaN : v));
  return bits;
}

// Runs body(kernels) with a table and with the scalar one, and compares the floats that it returns.
template <typename Body>
void check_same_bits(const FloatKernels& kernels, const Body& body) {
  CHECK(bits_of(body(kernels)) == bits_of(body(kFloatScalar)));
}

std::int64_t generated_size() { return GENERATE(1, 7, 15, 16, 17, 31, 32, 33, 64, 100, 256); }

TEST_CASE("a float table carries the name of its instruction set") {
  for (const Isa isa : test::available_isas()) {
    REQUIRE(float_kernels(isa) != nullptr);
    // AMX multiplies integers alone: its floats are AVX-512's.
    const Isa of = isa == Isa::amx ? Isa::avx512vnni : isa;
    CHECK(std::string(float_kernels(isa)->name) == to_string(of));
  }
}

TEST_CASE("linear has the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t inputs = generated_size();
  const std::int64_t rows = GENERATE(1, 5, 6, 13), outputs = GENERATE(1, 4, 7);
  const Floats x = random_floats(rows * inputs, 1), w = random_floats(outputs * inputs, 2);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats y = zeros(rows * (outputs + 2));
    k.linear(x.data(), w.data(), y.data(), outputs + 2, rows, outputs, inputs);
    return y;
  });
}

TEST_CASE("a dot product is the tree sum of 16 fma lanes") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t inputs = 53;
  const Floats x = random_floats(inputs, 3), w = random_floats(inputs, 4);
  float lane[16] = {};
  for (std::size_t i = 0; i < 53; ++i) lane[i % 16] = std::fma(x[i], w[i], lane[i % 16]);
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  float y = 0;
  kernels.linear(x.data(), w.data(), &y, 1, 1, 1, inputs);
  CHECK(y == lane[0]);
}

// A row of every kind of value: ordinary, zero, with a NaN, with an infinity.
Floats norm_rows(std::int64_t n) {
  Floats x = random_floats(5 * n, 5);
  std::fill_n(x.begin() + n, n, 0.0f);
  x[static_cast<std::size_t>(2 * n + n / 2)] = kNaN;
  x[static_cast<std::size_t>(3 * n + n / 3)] = kInfinity;
  return x;
}
constexpr std::int64_t kNormRows = 5;

TEST_CASE("norms and their gradients have the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = generated_size(), rows = kNormRows;
  const bool layer = GENERATE(false, true), with_gain = GENERATE(false, true);
  const Floats x = norm_rows(n), gain = random_floats(n, 6), dy = random_floats(rows * n, 7);
  const RowNorm norm{layer, with_gain ? gain.data() : nullptr, 1e-5f};
  Floats stats = zeros(2 * rows);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats y = zeros(rows * n);
    k.norm(norm, x.data(), rows, n, y.data(), stats.data());
    y.insert(y.end(), stats.begin(), stats.end());
    return y;
  });
  for (const bool accumulate : {false, true}) {
    check_same_bits(kernels, [&](const FloatKernels& k) {
      Floats dx = random_floats(rows * n, 8), dgain = random_floats(n, 8);
      k.norm_backward(norm, x.data(), stats.data(), dy.data(), rows, n, dx.data(), accumulate,
                      dgain.data());
      dx.insert(dx.end(), dgain.begin(), dgain.end());
      return dx;
    });
  }
}

TEST_CASE("the sum of squares of a norm is the tree sum of 64 fma lanes") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = 205;
  const Floats x = random_floats(n, 3);
  float lane[64] = {};
  for (std::size_t i = 0; i < 205; ++i) lane[i % 64] = std::fma(x[i], x[i], lane[i % 64]);
  for (int width = 32; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  Floats y = zeros(n), stats = zeros(2);
  kernels.norm({false, nullptr, 1e-5f}, x.data(), 1, n, y.data(), stats.data());
  CHECK(stats == Floats{0.0f, 1.0f / std::sqrt(lane[0] / 205.0f + 1e-5f)});
}

TEST_CASE("norm_backward may overwrite dy") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = 37, rows = 2;
  const Floats x = random_floats(rows * n, 9), stats = {0.1f, 1.2f, -0.2f, 0.9f};
  Floats dy = random_floats(rows * n, 10), dx = zeros(rows * n);
  const RowNorm norm{true, nullptr, 0.0f};
  kernels.norm_backward(norm, x.data(), stats.data(), dy.data(), rows, n, dx.data(), false,
                        nullptr);
  kernels.norm_backward(norm, x.data(), stats.data(), dy.data(), rows, n, dy.data(), false,
                        nullptr);
  CHECK(dy == dx);
}

// The codes of a token as floats, then its scale: by the integer table of the same instruction set.
Floats quantized(const FloatKernels& kernels, const Floats& x) {
  for (const Isa isa : test::available_isas()) {
    if (float_kernels(isa) != &kernels) continue;
    std::vector<std::int8_t> codes(x.size());
    const float act_scale = integer_kernels(isa)->quantize_row(
        x.data(), static_cast<std::int64_t>(x.size()), codes.data());
    Floats result(codes.begin(), codes.end());
    result.push_back(act_scale);
    return result;
  }
  return {};
}

TEST_CASE("a norm and the quantisation of its rows give what both give one after the other") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = generated_size(), rows = kNormRows;
  const bool layer = GENERATE(false, true), with_gain = GENERATE(false, true);
  const Floats x = norm_rows(n), gain = random_floats(n, 6);
  const RowNorm norm{layer, with_gain ? gain.data() : nullptr, 1e-5f};
  Floats y = zeros(rows * n), stats = zeros(2 * rows), act_scale = zeros(rows), fused_stats = stats;
  std::vector<std::int8_t> codes(y.size());
  kernels.norm(norm, x.data(), rows, n, y.data(), stats.data());
  kernels.norm_quantize(norm, x.data(), rows, n, codes.data(), act_scale.data(),
                        fused_stats.data());
  CHECK(bits_of(fused_stats) == bits_of(stats));
  for (std::int64_t row = 0; row < rows; ++row) {
    Floats fused(codes.begin() + row * n, codes.begin() + (row + 1) * n);
    fused.push_back(act_scale[static_cast<std::size_t>(row)]);
    const Floats one(y.begin() + row * n, y.begin() + (row + 1) * n);
    CHECK(bits_of(fused) == bits_of(quantized(kernels, one)));
  }
}

TEST_CASE(
    "an activation with the norm and the quantisation behind it gives what all give in turn") {
  const FloatKernels& kernels = generated_kernels();
  const auto member = GENERATE(&FloatKernels::silu, &FloatKernels::relu2, &FloatKernels::gelu);
  const ActivationKernels& activation = kernels.*member;
  const std::int64_t n = generated_size();
  const bool layer = GENERATE(false, true), with_gain = GENERATE(false, true),
             gated = GENERATE(false, true);
  const Floats gate = random_floats(n, 40, 2.0f), up = random_floats(n, 41),
               gain = random_floats(n, 42), dy = random_floats(n, 43);
  const float* const ups = gated ? up.data() : nullptr;
  const RowNorm norm{layer, with_gain ? gain.data() : nullptr, 1e-5f};
  Floats h = zeros(n), y = zeros(n), stats = zeros(2);
  activation.forward(gate.data(), ups, h.data(), n);
  kernels.norm(norm, h.data(), 1, n, y.data(), stats.data());

  std::vector<std::int8_t> codes(h.size());
  for (const bool normed : {false, true}) {
    Floats scratch = zeros(n), fused_stats = zeros(2);
    const float act_scale =
        activation.quantize(gate.data(), ups, n, normed ? &norm : nullptr, scratch.data(),
                            codes.data(), normed ? fused_stats.data() : nullptr);
    Floats fused(codes.begin(), codes.end());
    fused.push_back(act_scale);
    CHECK(bits_of(fused) == bits_of(quantized(kernels, normed ? y : h)));
    if (normed) CHECK(fused_stats == stats);
  }

  Floats dh = zeros(n), dgate = zeros(n), dup = zeros(n), dgain = random_floats(n, 44);
  Floats fused_dgate = zeros(n), fused_dup = zeros(n), fused_dgain = dgain, scratch = zeros(2 * n);
  kernels.norm_backward(norm, h.data(), stats.data(), dy.data(), 1, n, dh.data(), false,
                        dgain.data());
  activation.backward(gate.data(), ups, dh.data(), dgate.data(), gated ? dup.data() : nullptr, n);
  activation.norm_backward(gate.data(), ups, n, norm, stats.data(), dy.data(), scratch.data(),
                           fused_dgate.data(), gated ? fused_dup.data() : nullptr,
                           fused_dgain.data());
  CHECK(bits_of(fused_dgate) == bits_of(dgate));
  CHECK(bits_of(fused_dup) == bits_of(dup));
  CHECK(bits_of(fused_dgain) == bits_of(dgain));
}

TEST_CASE("dropout keeps by Philox's words on every ISA, also where the counter's low word ends") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = GENERATE(1, 4, 15, 16, 33, 63, 64, 65, 130, 256);
  const std::uint64_t first_block =
      GENERATE(std::uint64_t{0}, std::uint64_t{7}, (std::uint64_t{1} << 32) - 5,
               (std::uint64_t{5} << 42) + 3);
  const RandomStream stream{0x123456789abcdef0u, RandomPurpose::dropout, 17};
  DropoutRule rule{.keys = {},
                   .step = stream.step,
                   .purpose = static_cast<std::uint32_t>(stream.purpose),
                   .last_dropped = GENERATE(0u, 0x33333332u, 0x80000000u, 0xfffffffeu),
                   .keep = 0.8f};
  fill_philox_keys(stream.seed, rule.keys);
  const Floats x = random_floats(n, 45);
  Floats expected = x, y = x;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::uint32_t word = stream.block(first_block + i / 4)[i % 4];
    expected[i] = word > rule.last_dropped ? x[i] / 0.8f : 0.0f;
  }
  kernels.dropout(rule, first_block, y.data(), y.data(), n);  // in place
  CHECK(bits_of(y) == bits_of(expected));
}

TEST_CASE("rope has the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t head_dim = GENERATE(2, 16, 30, 32, 48, 64, 128);
  const float sign = GENERATE(1.0f, -1.0f);
  const Floats angles = random_floats(head_dim, 11);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats x = random_floats(3 * head_dim, 12);
    k.rope(x.data(), angles.data(), 3, head_dim, sign);
    return x;
  });
}

// Rows of keys [tokens, stride], heads of head_dim side by side, as a cache holds them; what is not of
// a token is NaN.
Floats interleaved_keys(const Floats& k, std::int64_t stride, std::int64_t head_dim) {
  const auto tokens = static_cast<std::int64_t>(k.size()) / stride;
  const std::int64_t room = (tokens + kInterleavedKeys - 1) / kInterleavedKeys * kInterleavedKeys;
  Floats interleaved(static_cast<std::size_t>(room * stride), kNaN);
  for (std::int64_t j = 0; j < tokens; ++j) {
    for (std::int64_t c = 0; c < stride; ++c) {
      const std::int64_t head = c / head_dim, e = c % head_dim, within = j % kInterleavedKeys;
      const std::int64_t place =
          (j - within) * stride + (head * head_dim + e) * kInterleavedKeys + within;
      interleaved[static_cast<std::size_t>(place)] = k[static_cast<std::size_t>(j * stride + c)];
    }
  }
  return interleaved;
}

TEST_CASE(
    "interleave_keys puts keys, or halves of them, among the 16 of their group on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t head_dim = GENERATE(16, 48, 128), stride = 2 * head_dim;
  const auto [first, count] = GENERATE(
      table<std::int64_t, std::int64_t>({{0, 16}, {0, 1}, {0, 15}, {5, 11}, {15, 1}, {3, 2}}));
  const bool half = GENERATE(false, true);
  const Floats k = random_floats(count * stride, 21, 3.0f);
  Floats expected(static_cast<std::size_t>(kInterleavedKeys * head_dim), -7.0f),
      interleaved = expected;
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t e = 0; e < head_dim; ++e) {
      expected[static_cast<std::size_t>(e * kInterleavedKeys + first + j)] =
          k[static_cast<std::size_t>(j * stride + head_dim + e)];
    }
  }
  if (!half) {
    kernels.interleave_keys(k.data() + head_dim, stride, count, head_dim, first, false,
                            interleaved.data());
    CHECK(bits_of(interleaved) == bits_of(expected));
    return;
  }
  std::vector<std::uint16_t> halves(interleaved.size()), expected_halves(interleaved.size());
  kFloatScalar.narrow(interleaved.data(), halves.data(),
                      static_cast<std::int64_t>(interleaved.size()));
  kFloatScalar.narrow(expected.data(), expected_halves.data(),
                      static_cast<std::int64_t>(expected.size()));
  kernels.interleave_keys(k.data() + head_dim, stride, count, head_dim, first, true, halves.data());
  CHECK(halves == expected_halves);
}

// How queries meet keys: in blocks with rows of keys, in blocks with those of a cache, or one token at
// a time with those of a cache.
enum class Meet { rows, cache, token };

// Two heads side by side, of which the kernels get the second; keys and values as floats or halves.
struct AttentionInputs {
  std::int64_t tokens, first_position, head_dim;
  bool half = false;
  std::int64_t stride() const { return 2 * head_dim; }
  std::int64_t queries() const { return tokens - first_position; }
  Floats q = random_floats(queries() * stride(), 13, 2.0f);
  Floats k = random_floats(tokens * stride(), 14);
  Floats v = random_floats(tokens * stride(), 15);

  static std::vector<std::uint16_t> halves_of(const Floats& x) {
    std::vector<std::uint16_t> halves(x.size());
    kFloatScalar.narrow(x.data(), halves.data(), static_cast<std::int64_t>(x.size()));
    return halves;
  }

  // out, then logsumexp.
  Floats forward(const FloatKernels& kernels, Meet meet) const {
    const bool interleaved = meet != Meet::rows;
    const Floats k_rows = interleaved ? interleaved_keys(k, stride(), head_dim) : k;
    const std::int64_t second = interleaved ? head_dim * kInterleavedKeys : head_dim;
    const auto half_k = halves_of(k_rows), half_v = halves_of(v);
    const void* keys = half ? static_cast<const void*>(half_k.data() + second)
                            : static_cast<const void*>(k_rows.data() + second);
    const void* values = half ? static_cast<const void*>(half_v.data() + head_dim)
                              : static_cast<const void*>(v.data() + head_dim);
    Floats out = zeros(queries() * stride()), logsumexp = zeros(queries());
    for (std::int64_t first = 0; first < queries();) {
      const std::int64_t position = first_position + first;
      const std::int64_t end =
          std::min(kAttentionTile - position % kAttentionTile + first, queries());
      const float* rows = q.data() + first * stride() + head_dim;
      float* to = out.data() + first * stride() + head_dim;
      if (meet == Meet::token) {
        kernels.attention_token({.q = rows,
                                 .k = keys,
                                 .v = values,
                                 .half = half,
                                 .out = to,
                                 .logsumexp = logsumexp.data() + first,
                                 .logsumexp_stride = 1,
                                 .kv_stride = stride(),
                                 .heads = 1,
                                 .position = position,
                                 .head_dim = head_dim,
                                 .scale = 0.125f});
        ++first;
        continue;
      }
      kernels.attention_block({.q = rows,
                               .k = keys,
                               .v = values,
                               .half = half,
                               .interleaved = interleaved,
                               .out = to,
                               .logsumexp = logsumexp.data() + first,
                               .q_stride = stride(),
                               .kv_stride = stride(),
                               .queries = end - first,
                               .first_position = position,
                               .head_dim = head_dim,
                               .scale = 0.125f});
      first = end;
    }
    out.insert(out.end(), logsumexp.begin(), logsumexp.end());
    return out;
  }
};

TEST_CASE("attention has the same bits on every ISA, by blocks of queries and token by token") {
  const FloatKernels& kernels = generated_kernels();
  const auto [tokens, first_position] = GENERATE(table<std::int64_t, std::int64_t>(
      {{1, 0}, {17, 0}, {64, 0}, {65, 0}, {131, 0}, {130, 129}, {150, 61}, {90, 70}}));
  const std::int64_t head_dim = GENERATE(16, 48, 64, 80, 128, 256);
  const bool half = GENERATE(false, true);
  const AttentionInputs inputs{tokens, first_position, head_dim, half};
  check_same_bits(kernels, [&](const FloatKernels& k) { return inputs.forward(k, Meet::rows); });
  const auto expected = bits_of(inputs.forward(kFloatScalar, Meet::rows));
  for (const FloatKernels* table : {&kFloatScalar, &kernels}) {
    CHECK(bits_of(inputs.forward(*table, Meet::cache)) == expected);
    CHECK(bits_of(inputs.forward(*table, Meet::token)) == expected);
  }
}

TEST_CASE("attention over halves equals attention over the same halves widened") {
  const FloatKernels& kernels = generated_kernels();
  AttentionInputs inputs{100, 30, 32, true};
  const Meet meet = GENERATE(Meet::rows, Meet::cache, Meet::token);
  const Floats expected = inputs.forward(kernels, meet);
  for (Floats* x : {&inputs.k, &inputs.v}) {
    const auto halves = AttentionInputs::halves_of(*x);
    kernels.widen(halves.data(), x->data(), static_cast<std::int64_t>(x->size()));
  }
  inputs.half = false;
  CHECK(inputs.forward(kernels, meet) == expected);
}

TEST_CASE("a token's query heads have the same bits together and one by one") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t heads = GENERATE(1, 3, 4, 7, 16), head_dim = 32, position = 99;
  const Floats q = random_floats(heads * head_dim, 13, 2.0f);
  const Floats k = interleaved_keys(random_floats((position + 1) * head_dim, 14), head_dim,
                                    head_dim),
               v = random_floats((position + 1) * head_dim, 15);
  const auto attend = [&](const FloatKernels& table, std::int64_t first, std::int64_t count,
                          Floats& out) {
    table.attention_token({.q = q.data() + first * head_dim,
                           .k = k.data(),
                           .v = v.data(),
                           .half = false,
                           .out = out.data() + first * head_dim,
                           .logsumexp = nullptr,
                           .logsumexp_stride = 0,
                           .kv_stride = head_dim,
                           .heads = count,
                           .position = position,
                           .head_dim = head_dim,
                           .scale = 0.125f});
  };
  Floats together = zeros(heads * head_dim), single = together;
  attend(kernels, 0, heads, together);
  for (std::int64_t h = 0; h < heads; ++h) attend(kFloatScalar, h, 1, single);
  CHECK(together == single);
}

TEST_CASE("attention ignores whatever stands in later keys and values, even NaN") {
  const FloatKernels& kernels = generated_kernels();
  AttentionInputs inputs{75, 0, 32};
  const Meet meet = GENERATE(Meet::rows, Meet::cache, Meet::token);
  const Floats before = inputs.forward(kernels, meet);
  const std::int64_t changed = GENERATE(1, 40, 63, 64, 74);
  const std::int64_t clean = changed * inputs.stride();
  std::fill(inputs.k.begin() + clean, inputs.k.end(), kNaN);
  std::fill(inputs.v.begin() + clean, inputs.v.end(), kInfinity);
  const Floats after = inputs.forward(kernels, meet);
  CHECK(Floats(before.begin(), before.begin() + clean) ==
        Floats(after.begin(), after.begin() + clean));
  CHECK(std::isnan(after[static_cast<std::size_t>(clean + inputs.head_dim)]));
}

TEST_CASE("every half widens to its value and narrows back, on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  std::vector<std::uint16_t> halves(65536), back(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  Floats wide = zeros(65536);
  kernels.widen(halves.data(), wide.data(), 65536);
  kernels.narrow(wide.data(), back.data(), 65536);
  std::int64_t wrong = 0;
  for (int i = 0; i < 65536; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const int exponent = i >> 10 & 31, fraction = i & 1023;
    if (exponent == 31 && fraction != 0) {  // NaN: the quiet bit is set, the rest stays
      wrong += !std::isnan(wide[at]) || back[at] != (halves[at] | 0x200);
      continue;
    }
    double value =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) value = std::numeric_limits<double>::infinity();
    wrong += std::bit_cast<std::uint32_t>(wide[at]) !=
             std::bit_cast<std::uint32_t>(static_cast<float>(i >= 32768 ? -value : value));
    wrong += back[at] != halves[at];
  }
  CHECK(wrong == 0);
}

TEST_CASE("narrowing rounds to the nearest half, ties to even, and overflows to infinity") {
  const FloatKernels& kernels = generated_kernels();
  // Beside every half and every middle between two: the float itself and its two neighbours.
  Floats x;
  std::vector<std::uint16_t> expected;
  for (std::uint16_t low = 0; low < 0x7C00; ++low) {  // up to the largest finite half
    const auto value = [](int half) {                 // 65536 stands where infinity is
      const int exponent = half >> 10;
      return exponent == 0 ? std::ldexp(half, -24)
                           : std::ldexp(1024 + (half & 1023), exponent - 25);
    };
    const auto middle = static_cast<float>((value(low) + value(low + 1)) / 2);
    const auto even = static_cast<std::uint16_t>(low + low % 2),
               high = static_cast<std::uint16_t>(low + 1);
    const auto add = [&](float f, std::uint16_t half) {
      x.push_back(f);
      expected.push_back(half);
      x.push_back(-f);
      expected.push_back(static_cast<std::uint16_t>(half | 0x8000));
    };
    add(middle, even);
    add(std::nextafter(middle, 0.0f), low);
    add(std::nextafter(middle, kInfinity), high);
  }
  for (const float f : {65536.0f, 1e20f, std::numeric_limits<float>::max(), kInfinity}) {
    x.push_back(f);
    expected.push_back(0x7C00);
  }
  for (const float f : {0.0f, 1e-45f, 1e-38f, 1e-10f}) {
    x.push_back(f);
    expected.push_back(0);
  }
  x.push_back(kNaN);
  expected.push_back(0x7E00);
  std::vector<std::uint16_t> halves(x.size());
  kernels.narrow(x.data(), halves.data(), static_cast<std::int64_t>(x.size()));
  CHECK((halves == expected));
  for (const std::size_t n : {1u, 7u, 15u, 17u, 33u}) {  // ends of rows
    std::vector<std::uint16_t> some(n + 1, 0xABCD);
    kernels.narrow(x.data(), some.data(), static_cast<std::int64_t>(n));
    CHECK(std::equal(some.begin(), some.end() - 1, expected.begin()));
    CHECK(some.back() == 0xABCD);
    Floats wide(n + 1, 7.0f), all = zeros(static_cast<std::int64_t>(x.size()));
    kernels.widen(expected.data(), wide.data(), static_cast<std::int64_t>(n));
    kernels.widen(expected.data(), all.data(), static_cast<std::int64_t>(x.size()));
    CHECK(std::equal(wide.begin(), wide.end() - 1, all.begin()));
    CHECK(wide.back() == 7.0f);
  }
}

TEST_CASE("attention's gradients have the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t tokens = GENERATE(1, 19, 64, 70, 130), head_dim = GENERATE(16, 48, 64);
  const std::int64_t heads = 2, q_stride = heads * head_dim;
  const Floats q = random_floats(tokens * q_stride, 16),
               dout = random_floats(tokens * q_stride, 17);
  const Floats k = random_floats(tokens * head_dim, 18), v = random_floats(tokens * head_dim, 19);
  Floats out = random_floats(tokens * q_stride, 20), logsumexp = random_floats(heads * tokens, 21);
  for (float& value : logsumexp) value += 4.0f;  // any operands will do
  check_same_bits(kernels, [&](const FloatKernels& table) {
    Floats dq = random_floats(tokens * q_stride, 22), dk = random_floats(tokens * head_dim, 23);
    Floats dv = dk, delta = zeros(heads * tokens);
    table.attention_backward({.q = q.data(),
                              .out = out.data(),
                              .dout = dout.data(),
                              .dq = dq.data(),
                              .k = k.data(),
                              .v = v.data(),
                              .dk = dk.data(),
                              .dv = dv.data(),
                              .logsumexp = logsumexp.data(),
                              .delta = delta.data(),
                              .q_stride = q_stride,
                              .kv_stride = head_dim,
                              .tokens = tokens,
                              .heads = heads,
                              .head_dim = head_dim,
                              .scale = 0.125f});
    dq.insert(dq.end(), dk.begin(), dk.end());
    dq.insert(dq.end(), dv.begin(), dv.end());
    return dq;
  });
}

// Random values and every kind of special one.
Floats awkward_floats() {
  Floats x = random_floats(300, 23, 20.0f);
  for (const float magnitude :
       {0.0f, 1e-45f, 1e-38f, 1e-20f, 0.5f, 1.0f, 86.6f, 86.7f, 88.7f, 88.8f, 150.0f, 1e20f,
        std::numeric_limits<float>::max(), kInfinity, kNaN}) {
    x.push_back(magnitude);
    x.push_back(-magnitude);
  }
  return x;
}

TEST_CASE(
    "activations and their gradients have the same bits on every ISA, special values included") {
  const FloatKernels& kernels = generated_kernels();
  const auto member = GENERATE(&FloatKernels::silu, &FloatKernels::relu2, &FloatKernels::gelu);
  const bool gated = GENERATE(false, true);
  const Floats gate = awkward_floats();
  const auto n = static_cast<std::int64_t>(gate.size());
  const Floats up = random_floats(n, 24), dy = random_floats(n, 25);
  const float* ups = gated ? up.data() : nullptr;
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats y = zeros(n), dup = zeros(n), dgate = gate;  // in place
    (k.*member).forward(gate.data(), ups, y.data(), n);
    (k.*member).backward(dgate.data(), ups, dy.data(), dgate.data(), gated ? dup.data() : nullptr,
                         n);
    y.insert(y.end(), dgate.begin(), dgate.end());
    y.insert(y.end(), dup.begin(), dup.end());
    return y;
  });
}

TEST_CASE("exp is within 1 ulp of the true value, 0 below its range and infinite above") {
  const FloatKernels& kernels = generated_kernels();
  Floats x, y;
  for (double v = kExpUnderflow; v <= kExpOverflow; v += 0.00137)
    x.push_back(static_cast<float>(v));
  y = x;
  kernels.exp(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] < kExpUnderflow) continue;
    const double exact = std::exp(static_cast<double>(x[i]));
    int exponent = 0;
    std::frexp(exact, &exponent);  // an ulp is 2^(exponent - 24)
    worst = std::max(worst,
                     std::abs(static_cast<double>(y[i]) - exact) / std::ldexp(1.0, exponent - 24));
  }
  INFO("largest error in ulp: " << worst);
  CHECK(worst <= 1.0);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats values = awkward_floats();
    k.exp(values.data(), values.data(), static_cast<std::int64_t>(values.size()));
    return values;
  });
  const Floats ends = {-kInfinity, -87.0f, 0.0f, 89.0f, kInfinity, kNaN};
  Floats at_ends = ends;
  kernels.exp(ends.data(), at_ends.data(), 6);
  CHECK(bits_of(at_ends) == bits_of({0.0f, 0.0f, 1.0f, kInfinity, kInfinity, kNaN}));
}

TEST_CASE("cross_entropy has the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = generated_size();
  const Floats logits = random_floats(n, 26, 5.0f);
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats dlogits = logits;  // in place
    const float loss = k.cross_entropy(dlogits.data(), n, n / 2, 0.25f, dlogits.data());
    dlogits.push_back(loss);
    dlogits.push_back(k.cross_entropy(logits.data(), n, n / 2, 0.25f, nullptr));
    CHECK(dlogits[static_cast<std::size_t>(n)] == dlogits.back());
    return dlogits;
  });
}

TEST_CASE("adamw, add and the sums have the same bits on every ISA") {
  const FloatKernels& kernels = generated_kernels();
  const std::int64_t n = generated_size();
  const Floats a = random_floats(n, 27), b = random_floats(n, 28);
  const AdamWFactors factors{0.5f, 0.9999f, 0.1f, 0.95f, 0.05f, 4.0f, 1e-8f, 0.003f};
  check_same_bits(kernels, [&](const FloatKernels& k) {
    Floats p = b, m = random_floats(n, 29), v = random_floats(n, 30), sum = zeros(n);
    for (float& value : v) value *= value;
    k.adamw(factors, a.data(), p.data(), m.data(), v.data(), n);
    k.add(a.data(), b.data(), sum.data(), n);
    for (const Floats* more : {&m, &v, &sum}) p.insert(p.end(), more->begin(), more->end());
    return p;
  });
  CHECK(kernels.sum(a.data(), n) == kFloatScalar.sum(a.data(), n));
  CHECK(kernels.sum_of_squares(a.data(), n) == kFloatScalar.sum_of_squares(a.data(), n));
}

}  // namespace
}  // namespace bitnet::cpu
