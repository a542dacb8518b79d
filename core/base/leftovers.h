// SPDX-License-Identifier: MIT
// What killed processes left of files that they had not finished.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace bitnet {

// The files and folders "<target><suffix><process id>", and those that begin so and go on with ".",
// of processes that are no more (or have this one's id, which they had before it).
std::vector<std::filesystem::path> find_leftovers(const std::filesystem::path& target,
                                                  std::string_view suffix);
// Removes them; what cannot be removed stays.
void remove_leftovers(const std::filesystem::path& target, std::string_view suffix);

}  // namespace bitnet
