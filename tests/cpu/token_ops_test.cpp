// SPDX-License-Identifier: MIT
// The CPU backend looks at tokens and targets before it uses them. (A GPU would have to wait.)
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/cpu/cpu_backend.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

TEST_CASE("a token outside the vocabulary is refused with its value and position") {
  const auto be = make_cpu_backend(1);
  Tensor table = test::to_device(*be, {5, 16}, test::random_numbers(4, 5 * 16)),
         y = be->make_tensor(DType::f32, {2, 16});
  const std::int32_t bad = GENERATE(-1, 5, 2000000000);
  Tensor tokens = test::to_device(*be, {2}, std::vector<std::int32_t>{0, bad});
  const std::string expected = std::to_string(bad) + " at position 1 ";
  const auto says_so = [&](const auto& operation) {
    try {
      operation();
    } catch (const ContractError& error) {
      return std::string(error.what()).find(expected) != std::string::npos;
    }
    return false;
  };
  CHECK(says_so([&] { be->embedding(tokens, table, y); }));
  CHECK(says_so([&] { be->embedding_backward(tokens, y, table); }));
  Tensor logits = be->make_tensor(DType::f32, {2, 5}), loss = be->make_tensor(DType::f32, {2});
  if (bad != -1) CHECK(says_so([&] { be->cross_entropy(logits, tokens, loss, 1.0f, {}); }));
}

}  // namespace
}  // namespace bitnet
