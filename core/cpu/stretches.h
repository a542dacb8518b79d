// SPDX-License-Identifier: MIT
// How operations that walk memory are cut into tasks: by shape alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/base/parallel.h"

namespace bitnet::cpu {

inline constexpr std::int64_t kStretch =
    1 << 14;  // elements of a bandwidth-bound task: 64 KB of each operand

// Calls body(first, count) in parallel for stretches of [0, items).
template <typename Body>
void run_stretches(const ThreadTeam& team, std::int64_t items, std::int64_t stretch,
                   const Body& body) {
  team.run(tile_count(items, stretch), [&](std::int64_t task) {
    body(task * stretch, std::min(stretch, items - task * stretch));
  });
}

// Rows of `columns` elements that make a task.
inline std::int64_t rows_per_stretch(std::int64_t columns) {
  return std::max<std::int64_t>(kStretch / std::max<std::int64_t>(columns, 1), 1);
}

}  // namespace bitnet::cpu
