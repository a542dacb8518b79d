// SPDX-License-Identifier: MIT
// The integer product of the CPU backend: int8 activations times packed ternary weights. All
// projections that share an input are one parallel region.
#include <algorithm>
#include <array>
#include <span>

#include "core/backend/packed_shape.h"
#include "core/cpu/bit_linear_tiles.h"
#include "core/cpu/cpu_backend_impl.h"

namespace bitnet::cpu {
namespace {

constexpr std::size_t kMaxProducts = 8;      // that share an input: q, k, v; gate, up
constexpr std::int64_t kGroupedTokens = 96;  // tokens of a tile with grouped scales
constexpr std::int64_t kPanelTasks = 16;     // tasks wanted before panels are joined

// Products (multiplications) below which a second thread costs more than it saves: waking it takes
// 0.8 us, in which one thread multiplies 32 KB of packed weights.
constexpr std::int64_t kParallelProducts = 1 << 18;
// Packed rows of a streaming task, whose outputs are stored in whole lines. Where the rows are read
// once, tasks that follow one another become one tile: each time that outputs are stored costs as
// much as 8 KB of weights.
constexpr std::int64_t kTaskRows = 16;

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
  std::int64_t tile_rows, tile_tokens, token_tiles, tasks;
  std::int64_t joined;  // the most tasks of a tile

  // Neighbouring tasks share packed rows: tokens go first.
  void run(std::int64_t first, std::int64_t end, std::int64_t tokens,
           const std::int32_t* code_sums) const {
    for (std::int64_t task = first; task < end; task += joined) {
      const std::int64_t row = task / token_tiles * tile_rows,
                         token = task % token_tiles * tile_tokens;
      const std::int64_t rows = std::min(joined, end - task) * tile_rows;
      tile(operands,
           {row, std::min(rows, operands.shape.quarter - row), token,
            std::min(tile_tokens, tokens - token), tile == stream_tile ? code_sums : nullptr});
    }
  }

  // What up to `count` tasks from this one on read.
  ReadAhead::Stretch weights_of(std::int64_t task, std::int64_t count) const {
    const auto row_of = [&](std::int64_t t) {
      return std::min(t / token_tiles * tile_rows, operands.shape.quarter);
    };
    const std::int64_t first = row_of(task), end = row_of(std::min(task + count, tasks));
    return {operands.packed + first * operands.shape.inputs, (end - first) * operands.shape.inputs};
  }
};

// Tiles of `items` that are at most `largest`, as equal as multiples of `step` allow.
std::int64_t even_tile(std::int64_t items, std::int64_t largest, std::int64_t step) {
  const std::int64_t tiles = std::max<std::int64_t>(tile_count(items, largest), 1);
  return std::max(tile_count(items, tiles * step) * step, step);
}

// panel_tiles: panels times blocks of tokens, of all products that share the input.
Cut cut_product(const BitLinearOperands& operands, std::int64_t tokens, std::int64_t panel_tiles) {
  const PackedShape& shape = operands.shape;
  Cut cut{operands, stream_tile, kTaskRows, tokens, 1, 0, 1};
  if (in_panels(shape, tokens)) {
    cut.tile = panel_tile;
    cut.tile_rows =
        std::clamp<std::int64_t>(panel_tiles / kPanelTasks, 1, kTilePanels) * kPanelRows;
    cut.tile_tokens = even_tile(tokens, kPanelTokens, operands.panels->block_rows);
  } else {
    std::int64_t most_rows = kStreamTile / tokens;
    if (!shape.single_scale) {
      cut.tile = grouped_tile;
      cut.tile_tokens = std::min(tokens, kGroupedTokens);
      most_rows = kGroupedRows;
    }
    if (tokens <= operands.kernels->token_block) cut.joined = most_rows / kTaskRows;
  }
  cut.token_tiles = tile_count(tokens, cut.tile_tokens);
  cut.tasks = tile_count(shape.quarter, cut.tile_rows) * cut.token_tiles;
  return cut;
}

// The products of a bit_linear(), cut into tasks.
class CutProducts {
 public:
  // record: of the sequence that they are issued in, or null.
  CutProducts(const ThreadTeam& team, TokenRecord* record,
              std::span<const BitLinearOperands> operands, std::int64_t tokens)
      : team_(team), record_(record), tokens_(tokens) {
    std::int64_t products = 0, panel_tiles = 0;
    for (const BitLinearOperands& o : operands) {
      const std::int64_t quarter = o.shape.quarter;
      products += tokens * o.shape.outputs * o.shape.inputs;
      packed_bytes_ += quarter * o.shape.inputs;
      panel_tiles += tile_count(quarter, kPanelRows) * tile_count(tokens, kPanelTokens);
    }
    parallel_ = products >= kParallelProducts;
    for (std::size_t p = 0; p < operands.size(); ++p) {
      cuts_[p] = cut_product(operands[p], tokens, panel_tiles);
      tasks_ += cuts_[p].tasks;
      joined_ = joined_ || cuts_[p].joined > 1;
      streams_ = streams_ || cuts_[p].tile == stream_tile;
    }
  }

  void operator()(std::int64_t /*position*/) {
    const BitLinearOperands& any = cuts_[0].operands;
    for (std::int64_t t = 0; streams_ && t < tokens_; ++t) {
      code_sums_[static_cast<std::size_t>(t)] =
          any.kernels->sum_codes(any.codes + t * any.shape.inputs, any.shape.inputs);
    }
    if (record_ != nullptr) {
      record_->read_ahead().start_product(packed_bytes_, [&](int thread) -> ReadAhead::Stretch {
        std::int64_t task = team_.first_task(tasks_, thread);
        const std::int64_t count = team_.first_task(tasks_, thread + 1) - task;
        return task < tasks_ ? cut_of(task).weights_of(task, count) : ReadAhead::Stretch{};
      });
    }
    if (!parallel_) {
      run(0, tasks_);
    } else if (joined_) {
      team_.run_ranges(tasks_, [products = this](std::int64_t first, std::int64_t end) {
        products->run(first, end);
      });
    } else {
      team_.run(tasks_, [products = this](std::int64_t task) { products->run(task, task + 1); });
    }
  }

 private:
  // A task's product, and its number there.
  const Cut& cut_of(std::int64_t& task) const {
    const Cut* cut = cuts_.data();
    for (; task >= cut->tasks; ++cut) task -= cut->tasks;
    return *cut;
  }
  void run(std::int64_t first, std::int64_t end) const {
    while (first < end) {
      std::int64_t task = first;
      const Cut& cut = cut_of(task);
      const std::int64_t count = std::min(end - first, cut.tasks - task);
      cut.run(task, task + count, tokens_, code_sums_.data());
      first += count;
    }
  }

  const ThreadTeam& team_;
  TokenRecord* record_;
  std::int64_t tokens_, tasks_ = 0, packed_bytes_ = 0;
  bool parallel_ = false, joined_ = false, streams_ = false;
  std::array<Cut, kMaxProducts> cuts_{};
  // Written each time; what is above stays the same, in the caches of all threads.
  alignas(kApart) std::array<std::int32_t, kPanelThreshold> code_sums_;
};

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
                   stream_ahead(),
                   codes.as<std::int8_t>().data(),
                   act_scale.as<float>().data(),
                   product.packed.as<std::uint8_t>().data(),
                   product.weight_scale.as<float>().data(),
                   product.residual.as<float>().data(),
                   product.y.as<float>().data()};
  }
  issue(CutProducts(issued_team_, record_, std::span(operands).first(products.size()), tokens));
}

}  // namespace bitnet::cpu
