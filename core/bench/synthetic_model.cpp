// SPDX-License-Identifier: MIT
#include "core/bench/synthetic_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/base/machine.h"

namespace bitnet {
namespace {

// Word number `index` of a stream: the output function of splitmix64 (Steele et al. 2014) on a
// counter. Philox of core/base/random.h would take ten times as long for 2 billion weights.
std::uint64_t random_word(std::uint64_t stream, std::uint64_t index) {
  std::uint64_t z = (stream << 48) + (index + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

// 32 codes of two bits. A 3, which stands for no code, becomes 1, the zero: as often as the other
// two together.
std::uint64_t ternary_word(std::uint64_t random) {
  const std::uint64_t threes = random & (random >> 1) & 0x5555555555555555;
  return random ^ (threes << 1);
}
std::uint64_t binary_word(std::uint64_t random) { return random & 0xAAAAAAAAAAAAAAAA; }  // 0 or 2

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
// A bf16 number near `value`: its upper half.
std::uint16_t upper_half(float value) { return static_cast<std::uint16_t>(bits_of(value) >> 16); }

constexpr std::int64_t kWordsOfTask = 1 << 14;
constexpr std::int64_t kWordsAtOnce = std::int64_t{1} << 20;  // 8 MB on the host

// Words [first, first + count) of a stream into `words`, by all threads.
template <typename MakeWord>
void make_words(const ThreadTeam& team, std::uint64_t stream, std::int64_t first,
                std::int64_t count, const MakeWord& make_word, std::uint64_t* words) {
  team.run(tile_count(count, kWordsOfTask), [&](std::int64_t task) {
    const std::int64_t end = std::min(count, (task + 1) * kWordsOfTask);
    for (std::int64_t i = task * kWordsOfTask; i < end; ++i)
      words[i] = make_word(random_word(stream, static_cast<std::uint64_t>(first + i)));
  });
}

// The codes of a model, one tensor behind the other as in a packed file, which the system maps with
// large pages where it can.
class PackedCodes {
 public:
  PackedCodes(const ModelConfig& config, const ThreadTeam& team)
      : team_(team), kind_(config.linear_kind()) {
    std::int64_t bytes = 0;
    for (const TensorSpec& spec : list_tensors(config))
      if (spec.role == TensorRole::projection && config.quantized())
        bytes += spec.shape.elements() / 4;
    if (bytes > physical_memory())
      throw DeviceError(fmt::format("{} bytes of packed weights do not fit into the machine's {}",
                                    bytes, physical_memory()));
    bytes = std::max<std::int64_t>(tile_count(bytes, kLargePage), 1) * kLargePage;
    memory_.reset(static_cast<std::uint64_t*>(std::aligned_alloc(
                      static_cast<std::size_t>(kLargePage), static_cast<std::size_t>(bytes))),
                  [](std::uint64_t* p) { std::free(p); });
    if (memory_ == nullptr)
      throw DeviceError(fmt::format("no memory for {} bytes of packed weights", bytes));
    prefer_large_pages(memory_.get(), bytes);
  }

  // The next tensor, u8 of this shape: a multiple of 64 elements.
  Tensor make(Backend& backend, Shape shape) {
    std::uint64_t* const words = memory_.get() + used_;
    const std::int64_t count = shape.elements() / 8;
    make_words(
        team_, kFirstStream + tensors_++, 0, count,
        [this](std::uint64_t random) {
          return kind_ == LinearKind::b1 ? binary_word(random) : ternary_word(random);
        },
        words);
    used_ += count;
    return backend.adopt(memory_, words, DType::u8, shape);
  }

 private:
  static constexpr std::uint64_t kFirstStream = 1 << 15;  // beyond those of the other tensors
  const ThreadTeam& team_;
  LinearKind kind_;
  std::shared_ptr<std::uint64_t> memory_;
  std::int64_t used_ = 0;  // words
  std::uint64_t tensors_ = 0;
};

class Filler {
 public:
  Filler(Backend& backend, const ThreadTeam& team) : backend_(backend), team_(team) {}

  // Uniform in +-sqrt(3) * deviation: the deviation of a uniform variable is its range / sqrt(3).
  void fill_uniform(TensorView values, double deviation, std::uint64_t stream) {
    const double range = std::sqrt(3.0) * deviation;
    if (values.dtype() == DType::bf16) {  // four of a word, each from 16 bits of it
      const auto step = static_cast<float>(range * 0x1.0p-15);
      fill(values, stream, [step](std::uint64_t random) {
        std::uint64_t word = 0;
        for (int shift = 0; shift < 64; shift += 16)
          word |= std::uint64_t{upper_half(step * static_cast<std::int16_t>(random >> shift))}
                  << shift;
        return word;
      });
    } else {  // two of a word, each from 32 bits of it
      const auto step = static_cast<float>(range * 0x1.0p-31);
      fill(values, stream, [step](std::uint64_t random) {
        const std::uint64_t low =
            bits_of(step * static_cast<float>(static_cast<std::int32_t>(random)));
        const std::uint64_t high =
            bits_of(step * static_cast<float>(static_cast<std::int32_t>(random >> 32)));
        return low | high << 32;
      });
    }
  }

  void fill_constant(TensorView values, float value) {
    const std::vector<float> floats(static_cast<std::size_t>(values.elements()), value);
    backend_.copy_from_host(floats.data(), values);
  }

 private:
  // Byte i of the tensor is byte i % 8 of word i / 8. Made by all threads, handed over by one.
  template <typename MakeWord>
  void fill(TensorView tensor, std::uint64_t stream, const MakeWord& make_word) {
    const std::int64_t words = tile_count(tensor.bytes(), 8);
    words_.resize(static_cast<std::size_t>(std::min(words, kWordsAtOnce)));
    for (std::int64_t first = 0; first < words; first += kWordsAtOnce) {
      const std::int64_t count = std::min(kWordsAtOnce, words - first);
      make_words(team_, stream, first, count, make_word, words_.data());
      const std::int64_t element = size_of(tensor.dtype()),
                         bytes = std::min(count * 8, tensor.bytes() - first * 8);
      backend_.copy_from_host(
          words_.data(), TensorView(tensor.raw() + first * 8, tensor.dtype(), {bytes / element}));
    }
  }

  Backend& backend_;
  const ThreadTeam& team_;
  std::vector<std::uint64_t> words_;
};

}  // namespace

std::unique_ptr<Transformer> make_synthetic_model(Backend& backend, const ModelConfig& config,
                                                  const ThreadTeam& team) {
  PackedCodes codes(config, team);
  const TensorSource unfilled_but_codes = [&](const StoredTensor& wanted) {
    if (wanted.dtype == DType::u8) return codes.make(backend, wanted.shape);
    return backend.make_tensor(wanted.may_be_bf16 ? DType::bf16 : wanted.dtype, wanted.shape);
  };
  auto model = std::make_unique<Transformer>(
      backend, config, config.quantized() ? WeightForm::packed : WeightForm::latent,
      unfilled_but_codes);
  Filler filler(backend, team);
  std::uint64_t stream = 0;
  for (Parameter& p : model->parameters().all()) {
    ++stream;
    if (p.packed) {
      const auto inputs = static_cast<double>(p.spec.shape[1]);
      filler.fill_constant(p.weight_scale, static_cast<float>(1 / std::sqrt(inputs)));
    } else if (p.spec.role == TensorRole::norm_gain) {
      filler.fill_constant(p.value, 1.0f);
    } else {
      filler.fill_uniform(p.value, p.spec.init_std, stream);
    }
  }
  model->refresh_quantized();
  return model;
}

}  // namespace bitnet
