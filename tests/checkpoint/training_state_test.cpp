// SPDX-License-Identifier: MIT
#include "core/checkpoint/training_state.h"

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/safetensors.h"
#include "tests/checkpoint/small_model.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

using namespace bitnet;
using nlohmann::json;

namespace {

struct Moments {
  std::vector<Tensor> first, second;
  Moments(Backend& backend, const Parameters& parameters, bool filled) {
    std::uint32_t seed = 1;
    for (const Parameter& p : parameters.all()) {
      for (auto* list : {&first, &second}) {
        const auto values = test::random_numbers(seed++, p.spec.shape.elements());
        list->push_back(filled ? test::to_device(backend, p.spec.shape, values)
                               : backend.make_tensor(DType::f32, p.spec.shape));
      }
    }
  }
};

TrainingState sample_state() {
  TrainingState state;
  state.step = 1234;
  state.tokens = std::int64_t{1} << 60;
  state.seed = std::numeric_limits<std::uint64_t>::max();
  state.quant_amount = 0.1;
  state.best_bits_per_byte = 1.0 / 3;
  state.version = "0.1.0";
  state.device = "cuda";
  return state;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("training state and moments read back exactly") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const Transformer model(*backend, test::small_config("b158", 1), WeightForm::latent);
  Moments saved(*backend, model.parameters(), true), loaded(*backend, model.parameters(), false);
  TrainingState state = sample_state();
  const bool has_best = GENERATE(true, false);
  if (!has_best) state.best_bits_per_byte.reset();
  save_training_state(*backend, folder.path(), state, model.parameters(), saved.first,
                      saved.second);
  CHECK(load_training_state(*backend, folder.path(), model.parameters(), loaded.first,
                            loaded.second) == state);
  CHECK(read_training_state(folder.path()) == state);
  for (std::size_t i = 0; i < saved.first.size(); ++i) {
    CHECK(test::floats_of(*backend, saved.first[i]) == test::floats_of(*backend, loaded.first[i]));
    CHECK(test::floats_of(*backend, saved.second[i]) ==
          test::floats_of(*backend, loaded.second[i]));
  }
  const SafetensorsFile file(folder / "optimizer.safetensors");
  CHECK(file.find("model.norm.weight.exp_avg") != nullptr);
  CHECK(file.find("model.norm.weight.exp_avg_sq") != nullptr);
  CHECK(file.entries().size() == 2 * saved.first.size());
}

TEST_CASE("a training state that does not fit is refused") {
  const test::TemporaryFolder folder;
  const auto backend = make_cpu_backend(1);
  const Transformer model(*backend, test::small_config("b158", 1), WeightForm::latent);
  Moments moments(*backend, model.parameters(), true);
  const auto load = [&](const Transformer& into, Moments& m) {
    return message_of([&] {
      load_training_state(*backend, folder.path(), into.parameters(), m.first, m.second);
    });
  };
  CHECK(load(model, moments).find("cannot open") != std::string::npos);
  save_training_state(*backend, folder.path(), sample_state(), model.parameters(), moments.first,
                      moments.second);

  SECTION("moments of more layers") {
    const Transformer other(*backend, test::small_config("b158", 2), WeightForm::latent);
    Moments m(*backend, other.parameters(), false);
    CHECK(load(other, m).find("is missing; expected F32") != std::string::npos);
  }
  SECTION("moments of another shape") {
    ModelConfig config = test::small_config("b158", 1);
    config.vocab_size = 8;
    const Transformer other(*backend, config, WeightForm::latent);
    Moments m(*backend, other.parameters(), false);
    CHECK(load(other, m).find("is F32 [4, 64], expected F32 [8, 64]") != std::string::npos);
  }
  SECTION("moments of a model with fewer tensors") {
    ModelConfig config = test::small_config("b158", 1);
    config.use_sub_norms = false;
    const Transformer other(*backend, config, WeightForm::latent);
    Moments m(*backend, other.parameters(), false);
    CHECK(load(other, m).find("belongs to another model") != std::string::npos);
  }
  SECTION("the JSON") {
    const auto change = [&](const std::function<void(json&)>& edit) {
      json object = json::parse(read_text_file(folder / "trainer_state.json"));
      edit(object);
      write_file(folder / "trainer_state.json", object.dump());
      return message_of([&] { read_training_state(folder.path()); });
    };
    CHECK(change([](json&) {}) == "accepted");
    CHECK(change([](json& o) { o["best_bits_per_byte"] = "x"; }).find("best_bits_per_byte") !=
          std::string::npos);
    CHECK(change([](json& o) {
            o["best_bits_per_byte"] = nullptr;
            o["step"] = -1;
          }).find("step: expected an integer of at least 0, found -1") != std::string::npos);
    CHECK(change([](json& o) {
            o["step"] = 1;
            o["seed"] = -1;
          }).find("seed") != std::string::npos);
    CHECK(change([](json& o) {
            o["seed"] = 1;
            o["stepp"] = 2;
          }).find("unknown key 'stepp'; did you mean 'step'?") != std::string::npos);
    CHECK(change([](json& o) { o.erase("tokens"); }).find("lacks 'tokens'") != std::string::npos);
    CHECK(change([](json& o) { o = json::array(); }).find("not a JSON object") !=
          std::string::npos);
  }
}
