// SPDX-License-Identifier: MIT
// The integer product of the CPU backend: int8 activations times packed ternary weights. All
// projections that share an input are one parallel region.
#include <algorithm>
#include <array>

#include "core/backend/packed_shape.h"
#include "core/cpu/bit_linear_tiles.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/float_kernels.h"
#include "core/cpu/read_ahead.h"

namespace bitnet::cpu {
namespace {

constexpr std::size_t kMaxProducts = 8;      // that share an input: q, k, v; gate, up
constexpr std::int64_t kGroupedTokens = 96;  // tokens of a tile with grouped scales
constexpr std::int64_t kPanelTasks = 16;     // tasks wanted before panels are joined

// Products (multiplications) below which a second thread costs more than it saves: waking it takes
// 0.8 us, in which one thread multiplies 32 KB of packed weights.
constexpr std::int64_t kParallelProducts = 1 << 18;
// A streaming task: about a 24th of the call, within 16 and 128 KB of packed weights at one token.
constexpr std::int64_t kStreamTasks = 24;
constexpr std::int64_t kLeastTaskProducts = 1 << 16;
constexpr std::int64_t kMostTaskProducts = 1 << 19;
constexpr std::int64_t kRowStep = 16;  // of a task, whose outputs are stored in whole lines

// The packed weights of one token's call from which on its outputs go past the caches. Each line that
// has left them since the last token costs as much time as reading thirteen lines of weights; with
// smaller calls they are still in the second-level cache, also when they are read.
constexpr std::int64_t kPastCachesBytes = 1 << 21;
// The same for a residual, which other products' weights have pushed out besides: it is then added
// to the outputs when all weights have been read.
constexpr std::int64_t kColdResidualBytes = 1 << 20;

// Unpacking a panel pays from here on. Short rows earn it sooner, because streaming them adds up
// a register for every 64 columns of few.
constexpr std::int64_t kPanelThreshold = 32;
bool in_panels(const PackedShape& shape, std::int64_t tokens) {
  return shape.single_scale && tokens >= (shape.inputs < 512 ? 8 : kPanelThreshold);
}

// How one product is cut into tasks.
struct Cut {
  BitLinearOperands operands;
  void (*tile)(const BitLinearOperands&, const BitLinearTile&);
  std::int64_t tile_rows, tile_tokens, row_tiles, token_tiles, tiles_per_task, tasks;

  // Neighbouring tasks share packed rows: tokens go first.
  void run(std::int64_t task, std::int64_t tokens) const {
    const std::int64_t first = task * tiles_per_task;
    const std::int64_t last = std::min(first + tiles_per_task, row_tiles * token_tiles);
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t row = t / token_tiles * tile_rows, token = t % token_tiles * tile_tokens;
      tile(operands, {row, std::min(tile_rows, operands.shape.quarter - row), token,
                      std::min(tile_tokens, tokens - token)});
    }
  }

  // What up to `count` tasks from this one on read.
  ReadAhead::Stretch weights_of(std::int64_t task, std::int64_t count) const {
    const auto row_of = [&](std::int64_t t) {
      return std::min(t * tiles_per_task / token_tiles * tile_rows, operands.shape.quarter);
    };
    const std::int64_t first = row_of(task), end = row_of(std::min(task + count, tasks));
    return {operands.packed + first * operands.shape.inputs, (end - first) * operands.shape.inputs};
  }
};

// What the calls of one bit_linear() amount to.
struct Total {
  std::int64_t products = 0;
  std::int64_t panel_tiles = 0;  // panels times blocks of tokens
  std::int64_t task_rows = 0;    // packed rows of a streaming task
};

// Tiles of `items` that are at most `largest`, as equal as multiples of `step` allow.
std::int64_t even_tile(std::int64_t items, std::int64_t largest, std::int64_t step) {
  const std::int64_t tiles = std::max<std::int64_t>(tile_count(items, largest), 1);
  return std::max(tile_count(items, tiles * step) * step, step);
}

std::int64_t round_up(std::int64_t n, std::int64_t step) { return tile_count(n, step) * step; }

// The packed rows of a streaming task, about as many as its work asks for; if the threads cannot
// share those tasks evenly, of the numbers near that the one that leaves the fewest to the thread
// with the most. An output does not depend on the rows beside it: its bits are the same for any team.
std::int64_t task_rows(std::span<const BitLinearOperands> products, std::int64_t tokens,
                       std::int64_t total_products, int threads) {
  const std::int64_t work =
      std::clamp(total_products / kStreamTasks, kLeastTaskProducts, kMostTaskProducts);
  const std::int64_t row_work = std::max<std::int64_t>(4 * tokens * products[0].shape.inputs, 1);
  const std::int64_t wanted = round_up(tile_count(work, row_work), kRowStep);
  if (wanted > kStreamRows) return round_up(wanted, kStreamRows);  // whole tiles
  if (threads == 1) return wanted;
  const auto most_rows = [&](std::int64_t rows) {
    std::int64_t tasks = 0;
    for (const BitLinearOperands& product : products) {
      tasks += tile_count(product.shape.quarter, rows);
    }
    return tile_count(tasks, threads) * rows;
  };
  std::int64_t all_rows = 0;
  for (const BitLinearOperands& product : products) all_rows += product.shape.quarter;
  std::int64_t best = wanted, most = most_rows(wanted);
  if (most * threads == all_rows) return wanted;
  for (std::int64_t away = kRowStep; away <= wanted / 2; away += kRowStep) {
    for (const std::int64_t rows : {wanted + away, wanted - away}) {
      if (rows < kRowStep || rows > kStreamRows) continue;
      const std::int64_t most_of_rows = most_rows(rows);
      if (most_of_rows >= most) continue;
      best = rows;
      most = most_of_rows;
    }
  }
  return best;
}

Cut cut_product(const BitLinearOperands& operands, std::int64_t tokens, const Total& total) {
  const PackedShape& shape = operands.shape;
  Cut cut{operands, stream_tile, 0, tokens, 0, 0, 1, 0};
  if (in_panels(shape, tokens)) {
    cut.tile = panel_tile;
    cut.tile_rows =
        std::clamp<std::int64_t>(total.panel_tiles / kPanelTasks, 1, kTilePanels) * kPanelRows;
    cut.tile_tokens = even_tile(tokens, kPanelTokens, operands.panels->block_rows);
  } else {
    if (!shape.single_scale) {
      cut.tile = grouped_tile;
      cut.tile_tokens = std::min(tokens, kGroupedTokens);
    }
    cut.tile_rows = std::min(total.task_rows, kStreamRows);
    cut.tiles_per_task = tile_count(total.task_rows, cut.tile_rows);
  }
  cut.row_tiles = tile_count(shape.quarter, cut.tile_rows);
  cut.token_tiles = tile_count(tokens, cut.tile_tokens);
  cut.tasks = tile_count(cut.row_tiles * cut.token_tiles, cut.tiles_per_task);
  return cut;
}

}  // namespace

void CpuBackend::bit_linear(ConstTensorView codes, ConstTensorView act_scale,
                            std::span<const BitLinearProduct> products) {
  BITNET_CHECK(products.size() <= kMaxProducts, "{} products share an input, expected at most {}",
               products.size(), kMaxProducts);
  BITNET_CHECK(codes.shape().rank() == 2 && act_scale.elements() == codes.dim(0),
               "codes {}, act_scale {}: expected [rows, K], [rows]", codes.shape().to_string(),
               act_scale.shape().to_string());
  const std::int64_t tokens = codes.dim(0);
  if (tokens == 0 || products.empty()) return;
  std::array<BitLinearOperands, kMaxProducts> operands;
  Total total;
  for (std::size_t p = 0; p < products.size(); ++p) {
    const BitLinearProduct& product = products[p];
    const PackedShape shape = packed_shape(product.packed, product.weight_scale);
    const Shape y_shape = {tokens, shape.outputs};
    BITNET_CHECK(codes.dim(1) == shape.inputs && product.y.shape() == y_shape &&
                     (!product.residual || product.residual.shape() == y_shape),
                 "codes {}, packed {}, y {}, residual {}: expected [rows, K], [N / 4, K], "
                 "[rows, N], [rows, N] or none",
                 codes.shape().to_string(), product.packed.shape().to_string(),
                 product.y.shape().to_string(), product.residual.shape().to_string());
    operands[p] = {integer_,
                   panel_,
                   shape,
                   codes.as<std::int8_t>().data(),
                   nullptr,
                   act_scale.as<float>().data(),
                   product.packed.as<std::uint8_t>().data(),
                   product.weight_scale.as<float>().data(),
                   product.residual.as<float>().data(),
                   product.y.as<float>().data(),
                   false};
    total.products += tokens * shape.outputs * shape.inputs;
    total.panel_tiles += tile_count(shape.quarter, kPanelRows) * tile_count(tokens, kPanelTokens);
  }
  std::array<std::int32_t, kPanelThreshold> code_sums;
  for (std::int64_t t = 0; tokens < kPanelThreshold && t < tokens; ++t) {
    code_sums[static_cast<std::size_t>(t)] =
        integer_->sum_codes(operands[0].codes + t * codes.dim(1), codes.dim(1));
  }
  total.task_rows = task_rows(std::span(operands.data(), products.size()),
                              std::min(tokens, kGroupedTokens), total.products, team_.size());
  std::array<Cut, kMaxProducts> cuts;
  std::int64_t tasks = 0;
  // Of one token's call, where outputs can go past the caches.
  const std::int64_t streamed_bytes =
      tokens == 1 && integer_->store_products_past_caches != nullptr ? total.products / 4 : 0;
  const bool past_caches = streamed_bytes >= kPastCachesBytes;
  const bool late_residual = streamed_bytes >= kColdResidualBytes && products.size() == 1 &&
                             operands[0].residual != nullptr && operands[0].shape.single_scale;
  if (late_residual) {
    operands[0].residual = nullptr;
    operands[0].y = reduction_scratch_.get<float>(operands[0].shape.outputs);
  }
  for (std::size_t p = 0; p < products.size(); ++p) {
    operands[p].past_caches = late_residual || (past_caches && operands[p].residual == nullptr);
    cuts[p] = cut_product(operands[p], tokens, total);
    if (cuts[p].tile == stream_tile) cuts[p].operands.code_sums = code_sums.data();
    tasks += cuts[p].tasks;
  }
  // A task's product, and its number there.
  const auto cut_of = [&](std::int64_t& task) -> const Cut& {
    const Cut* cut = cuts.data();
    for (; task >= cut->tasks; ++cut) task -= cut->tasks;
    return *cut;
  };
  const auto run = [&](std::int64_t task) {
    const Cut& cut = cut_of(task);
    cut.run(task, tokens);
  };
  if (read_ahead_ != nullptr) {
    read_ahead_->start_product([&](int thread) -> ReadAhead::Stretch {
      std::int64_t task = team_.first_task(tasks, thread);
      const std::int64_t count = team_.first_task(tasks, thread + 1) - task;
      return task < tasks ? cut_of(task).weights_of(task, count) : ReadAhead::Stretch{};
    });
  }
  if (total.products < kParallelProducts) {
    for (std::int64_t task = 0; task < tasks; ++task) run(task);
  } else {
    team_.run(tasks, run, past_caches || late_residual ? Stores::past_caches : Stores::in_caches);
  }
  if (late_residual) {
    float_->add(products[0].residual.as<float>().data(), operands[0].y,
                products[0].y.as<float>().data(), operands[0].shape.outputs);
  }
}

}  // namespace bitnet::cpu
