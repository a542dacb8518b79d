// SPDX-License-Identifier: MIT
// A backend that hands every operation on to another one; tests override what they watch or
// disturb.
#pragma once

#include "core/backend/backend.h"

namespace bitnet::test {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(Backend& to) : to_(to) {}

  std::string name() const override { return to_.name(); }
  std::string detail() const override { return to_.detail(); }
  bool computes(GradientPrecision precision) const override { return to_.computes(precision); }
  DType training_dtype() const override { return to_.training_dtype(); }
  std::int64_t memory_bytes() const override { return to_.memory_bytes(); }
  Storage allocate(std::int64_t bytes) override { return to_.allocate(bytes); }
  void copy_from_host(const void* s, TensorView d) override { to_.copy_from_host(s, d); }
  void copy_to_host(ConstTensorView s, void* d) override { to_.copy_to_host(s, d); }
  void copy(ConstTensorView s, TensorView d) override { to_.copy(s, d); }
  void zero(TensorView x) override { to_.zero(x); }
  void synchronize() override { to_.synchronize(); }
  void convert(ConstTensorView x, TensorView y) override { to_.convert(x, y); }
  void embedding(ConstTensorView t, ConstTensorView e, TensorView y) override {
    to_.embedding(t, e, y);
  }
  void embedding_backward(ConstTensorView t, ConstTensorView dy, TensorView de) override {
    to_.embedding_backward(t, dy, de);
  }
  void norm(NormKind k, ConstTensorView x, ConstTensorView g, float e, TensorView y,
            TensorView s) override {
    to_.norm(k, x, g, e, y, s);
  }
  void norm_backward(NormKind k, ConstTensorView x, ConstTensorView g, ConstTensorView s,
                     ConstTensorView dy, TensorView dx, bool add, TensorView dg) override {
    to_.norm_backward(k, x, g, s, dy, dx, add, dg);
  }
  void quantize_activations(ConstTensorView x, TensorView c, TensorView s) override {
    to_.quantize_activations(x, c, s);
  }
  void dequantize_activations(ConstTensorView c, ConstTensorView s, TensorView x) override {
    to_.dequantize_activations(c, s, x);
  }
  void quantize_weights(const WeightQuantizer& q,
                        std::span<const WeightQuantization> matrices) override {
    to_.quantize_weights(q, matrices);
  }
  void dequantize_weights(ConstTensorView p, ConstTensorView s, TensorView w) override {
    to_.dequantize_weights(p, s, w);
  }
  void blend(ConstTensorView x, ConstTensorView q, float a, TensorView out) override {
    to_.blend(x, q, a, out);
  }
  void count_codes(std::span<const ConstTensorView> p, std::span<CodeCounts> c) override {
    to_.count_codes(p, c);
  }
  void norm_quantize(const NormArguments& n, ConstTensorView x, TensorView c, TensorView a,
                     TensorView s) override {
    to_.norm_quantize(n, x, c, a, s);
  }
  void gated_activation_quantize(Activation a, ConstTensorView g, ConstTensorView u,
                                 const NormArguments& n, TensorView c, TensorView scale,
                                 TensorView stats) override {
    to_.gated_activation_quantize(a, g, u, n, c, scale, stats);
  }
  void bit_linear(ConstTensorView c, ConstTensorView a,
                  std::span<const BitLinearProduct> products) override {
    to_.bit_linear(c, a, products);
  }
  void bit_linear_backward(ConstTensorView c, ConstTensorView a,
                           std::span<const BitLinearGradient> gradients, GradientPrecision p,
                           TensorView dx) override {
    to_.bit_linear_backward(c, a, gradients, p, dx);
  }
  void int8_linear(ConstTensorView c, ConstTensorView a, ConstTensorView w, ConstTensorView s,
                   TensorView y) override {
    to_.int8_linear(c, a, w, s, y);
  }
  void linear(ConstTensorView x, ConstTensorView w, TensorView y) override { to_.linear(x, w, y); }
  void linear_backward(ConstTensorView x, ConstTensorView w, ConstTensorView dy, TensorView dx,
                       bool add, TensorView dw) override {
    to_.linear_backward(x, w, dy, dx, add, dw);
  }
  void rope(TensorView x, ConstTensorView t, std::int64_t f, RopeDirection d) override {
    to_.rope(x, t, f, d);
  }
  void rope_append(TensorView q, TensorView k, ConstTensorView v, ConstTensorView table,
                   std::int64_t first_position, TensorView keys, TensorView values) override {
    to_.rope_append(q, k, v, table, first_position, keys, values);
  }
  void cached_attention(const AttentionShape& s, TensorView q, TensorView k, ConstTensorView v,
                        ConstTensorView table, TensorView keys, TensorView values,
                        TensorView out) override {
    to_.cached_attention(s, q, k, v, table, keys, values, out);
  }
  void attention(const AttentionShape& s, ConstTensorView q, ConstTensorView k, ConstTensorView v,
                 TensorView o, TensorView l) override {
    to_.attention(s, q, k, v, o, l);
  }
  void attention_backward(const AttentionShape& s, ConstTensorView q, ConstTensorView k,
                          ConstTensorView v, ConstTensorView o, ConstTensorView l,
                          ConstTensorView d, TensorView dq, TensorView dk, TensorView dv) override {
    to_.attention_backward(s, q, k, v, o, l, d, dq, dk, dv);
  }
  void gated_activation(Activation a, ConstTensorView g, ConstTensorView u, TensorView y) override {
    to_.gated_activation(a, g, u, y);
  }
  void gated_activation_backward(Activation a, ConstTensorView g, ConstTensorView u,
                                 ConstTensorView dy, TensorView dg, TensorView du) override {
    to_.gated_activation_backward(a, g, u, dy, dg, du);
  }
  void gated_activation_norm_backward(Activation a, ConstTensorView g, ConstTensorView u,
                                      const NormArguments& n, ConstTensorView s, ConstTensorView dy,
                                      TensorView dg, TensorView du, TensorView dgain) override {
    to_.gated_activation_norm_backward(a, g, u, n, s, dy, dg, du, dgain);
  }
  void add(ConstTensorView a, ConstTensorView b, TensorView y) override { to_.add(a, b, y); }
  void dropout(ConstTensorView x, double p, const RandomStream& s, std::uint64_t f,
               TensorView y) override {
    to_.dropout(x, p, s, f, y);
  }
  void cross_entropy(ConstTensorView l, ConstTensorView t, TensorView loss, float s,
                     TensorView d) override {
    to_.cross_entropy(l, t, loss, s, d);
  }
  void adamw(const AdamWStep& s, std::span<const AdamWParameter> parameters) override {
    to_.adamw(s, parameters);
  }
  void sums(std::span<const ConstTensorView> x, std::span<const ConstTensorView> squared,
            std::span<double> sums) override {
    to_.sums(x, squared, sums);
  }

 private:
  Backend& to_;
};

// Counts allocations of device memory.
class CountingBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  Storage allocate(std::int64_t bytes) override {
    ++allocations;
    return ForwardingBackend::allocate(bytes);
  }
  std::int64_t allocations = 0;
};

// Writes `poison` into the gradient of the embedding in the backward pass number `backward_pass`,
// from 1.
class PoisonedGradientBackend final : public ForwardingBackend {
 public:
  PoisonedGradientBackend(Backend& to, float poison, int backward_pass)
      : ForwardingBackend(to), poison_(poison), passes_left_(backward_pass) {}
  void embedding_backward(ConstTensorView t, ConstTensorView dy, TensorView de) override {
    ForwardingBackend::embedding_backward(t, dy, de);
    if (--passes_left_ == 0)
      copy_from_host(&poison_, de.rows(7, 1).reshaped({de.dim(1), 1}).rows(0, 1));
  }

 private:
  const float poison_;
  int passes_left_;
};

// Counts how often what is to be repeated is issued, and hands it on as something to repeat, or not.
class RepeatingBackend final : public ForwardingBackend {
 public:
  RepeatingBackend(Backend& to, bool repeats)
      : ForwardingBackend(to), repeats_(repeats ? &to : nullptr) {}
  void repeat(std::unique_ptr<RecordedOperations>& record, std::optional<std::int64_t> position,
              const std::function<void()>& operations) override {
    const auto counted = [&] {
      ++issued;
      operations();
    };
    repeats_ == nullptr ? counted() : repeats_->repeat(record, position, counted);
  }
  int issued = 0;

 private:
  Backend* repeats_;
};

}  // namespace bitnet::test
