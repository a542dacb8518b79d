// SPDX-License-Identifier: MIT
#include "core/train/schedule.h"

#include <cmath>
#include <numbers>

#include "tests/support/catch.h"

namespace bitnet {
namespace {

TrainConfig schedule(const std::string& type) {
  TrainConfig config;
  config.lr_scheduler_type = type;
  config.learning_rate = 1.0;
  config.min_learning_rate_ratio = 0.1;
  config.warmup_steps = 10;
  config.max_steps = 110;
  return config;
}

// A handful of roundings of numbers of size 1.
bool close(double a, double b) { return std::abs(a - b) <= 8e-16; }

TEST_CASE("the warm-up is linear and reaches the peak with its last step") {
  const TrainConfig config = schedule(GENERATE("constant", "linear", "cosine", "wsd", "two_stage"));
  CHECK(learning_rate_at(config, 0) == 0.1);
  CHECK(learning_rate_at(config, 4) == 0.5);
  CHECK(learning_rate_at(config, 9) == 1.0);
  CHECK(learning_rate_at(config, 10) == 1.0);
}

TEST_CASE("without warm-up the first step is at the peak") {
  TrainConfig config = schedule("cosine");
  config.warmup_steps = 0;
  CHECK(learning_rate_at(config, 0) == 1.0);
}

TEST_CASE("a constant schedule stays at the peak") {
  CHECK(learning_rate_at(schedule("constant"), 109) == 1.0);
}

TEST_CASE("a linear schedule falls to the minimum ratio") {
  const TrainConfig config = schedule("linear");
  CHECK(close(learning_rate_at(config, 60), 0.55));  // half way between 1 and 0.1
  CHECK(close(learning_rate_at(config, 110), 0.1));
  CHECK(close(learning_rate_at(config, 1000), 0.1));
}

TEST_CASE("a cosine schedule falls to the minimum ratio, steepest half way") {
  const TrainConfig config = schedule("cosine");
  CHECK(close(learning_rate_at(config, 60), 0.55));
  CHECK(
      close(learning_rate_at(config, 35), 0.1 + 0.9 * 0.5 * (1 + std::cos(std::numbers::pi / 4))));
  CHECK(close(learning_rate_at(config, 110), 0.1));
}

TEST_CASE("wsd is flat, then falls linearly over the last share of the steps") {
  TrainConfig config = schedule("wsd");
  config.max_steps = 100;
  config.decay_fraction = 0.25;
  CHECK(learning_rate_at(config, 50) == 1.0);
  CHECK(learning_rate_at(config, 75) == 1.0);
  CHECK(close(learning_rate_at(config, 85), 1 - 0.9 * 0.4));
  CHECK(close(learning_rate_at(config, 100), 0.1));
  config.decay_fraction = 0;
  CHECK(learning_rate_at(config, 99) == 1.0);
}

TEST_CASE("two_stage falls linearly toward 0 and drops to a lower peak half way") {
  TrainConfig config = schedule("two_stage");
  config.warmup_steps = 0;
  config.max_steps = 100;
  config.learning_rate_drop_ratio = 0.5;
  CHECK(close(learning_rate_at(config, 49), 0.51));
  CHECK(close(learning_rate_at(config, 50), 0.25));
  CHECK(close(learning_rate_at(config, 100), 0.0));
}

TEST_CASE("two_stage drops the learning rate and the weight decay at independent points") {
  TrainConfig config = schedule("two_stage");
  config.warmup_steps = 0;
  config.max_steps = 100;
  config.weight_decay = 0.1;
  config.learning_rate_drop_at = 0.25;
  config.weight_decay_off_at = 0.75;
  CHECK(learning_rate_at(config, 25) < 0.7 * learning_rate_at(config, 24));
  CHECK(weight_decay_at(config, 25) == 0.1);
  CHECK(weight_decay_at(config, 74) == 0.1);
  CHECK(weight_decay_at(config, 75) == 0.0);
  CHECK(learning_rate_at(config, 75) > 0.9 * learning_rate_at(config, 74));
}

TEST_CASE("only two_stage switches the weight decay off") {
  const TrainConfig config = schedule(GENERATE("constant", "linear", "cosine", "wsd"));
  CHECK(weight_decay_at(config, 109) == config.weight_decay);
}

TEST_CASE("no schedule is negative or above its peak, whatever the lengths") {
  TrainConfig config = schedule(GENERATE("constant", "linear", "cosine", "wsd", "two_stage"));
  config.warmup_steps = GENERATE(0, 1, 7, 50);
  config.max_steps = GENERATE(1, 2, 7, 30);
  for (std::int64_t step = 0; step <= config.max_steps; ++step) {
    CHECK(learning_rate_at(config, step) >= 0);
    CHECK(learning_rate_at(config, step) <= 1);
  }
}

TEST_CASE("schedules are the same as long as all of their numbers are") {
  TrainConfig a = schedule("wsd"), b = a;
  CHECK(same_schedule(a, b, 1000));
  a.decay_fraction = 0.1;
  b.decay_fraction = 0.2;  // from step 88 of 110; a from 99
  CHECK(same_schedule(a, b, 89));
  CHECK(!same_schedule(a, b, 90));
  b = a;
  b.weight_decay += 0.1;
  CHECK(same_schedule(a, b, 0));
  CHECK(!same_schedule(a, b, 1));
  b = a;
  b.quant_warmup_steps = 2;
  CHECK(!same_schedule(a, b, 1));
  b = a;
  b.max_steps += 10;
  CHECK(same_schedule(a, b, 100));
  CHECK(!same_schedule(a, b, 101));
}

TEST_CASE("quantisation grows from 0 to 1 over its warm-up and is whole without one") {
  TrainConfig config;
  CHECK(quant_amount_at(config, 0) == 1.0);
  config.quant_warmup_steps = 4;
  CHECK(quant_amount_at(config, 0) == 0.0);
  CHECK(quant_amount_at(config, 1) == 0.25);
  CHECK(quant_amount_at(config, 4) == 1.0);
  CHECK(quant_amount_at(config, 5) == 1.0);
}

}  // namespace
}  // namespace bitnet
