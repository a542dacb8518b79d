// SPDX-License-Identifier: MIT
// Many tensors in one launch: a table of them is an argument of the kernel, so that no copy to the
// device comes before it. Each tensor has a number of parts (tiles, say), and the parts of all
// tensors are numbered through: a block works on one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "cuda/gpu.h"

namespace bitnet::cuda {

inline constexpr std::size_t kListBytes = 4000;  // arguments of a kernel may have 4 KB

// As many as fit into the arguments of a launch.
template <typename Tensor>
struct TensorList {
  static constexpr int kMost =
      static_cast<int>((kListBytes - 16) / (sizeof(Tensor) + sizeof(std::uint32_t)));

  Tensor tensors[kMost];
  std::uint32_t first_part[kMost + 1];  // of each tensor; and how many parts there are
  int count;

  BITNET_DEVICE std::uint32_t parts() const { return first_part[count]; }
  // The last tensor that begins at or before the part (an empty one begins where the next does).
  BITNET_DEVICE int tensor_of(std::uint32_t part) const {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first_part[middle] <= part) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Host code: launch(list, first part of the list among those of all tensors) for the tensors in
// turn, until one fails. parts_of(tensor) is below 2^31.
template <typename Tensor, typename PartsOf, typename Launch>
cudaError_t for_each_list(std::span<const Tensor> tensors, PartsOf parts_of, Launch launch) {
  using List = TensorList<Tensor>;
  static_assert(sizeof(List) <= kListBytes);
  std::int64_t parts_before = 0;
  while (!tensors.empty()) {
    List list{};
    std::int64_t parts = 0;
    for (const Tensor& tensor : tensors) {
      const std::int64_t more = parts_of(tensor);
      if (list.count == List::kMost || (list.count > 0 && (parts + more) >> 31 != 0)) break;
      list.tensors[list.count++] = tensor;
      parts += more;
      list.first_part[list.count] = static_cast<std::uint32_t>(parts);
    }
    const cudaError_t error = launch(list, parts_before);
    if (error != cudaSuccess) return error;
    parts_before += parts;
    tensors = tensors.subspan(static_cast<std::size_t>(list.count));
  }
  return cudaSuccess;
}

}  // namespace bitnet::cuda
