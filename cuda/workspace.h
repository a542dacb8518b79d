// SPDX-License-Identifier: MIT
// Device memory that operations use between their kernels. All work of the backend is ordered by
// one stream, so the next operation may have the same memory again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitnet::cuda {

class Workspace {
 public:
  Workspace() = default;
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Makes one piece of what the operations so far have taken in several. Between operations.
  void settle();
  // Changes when memory that an operation has used is given back.
  std::int64_t generation() const { return generation_; }

  // The memory of one operation: ends with the scope. Frames may nest.
  class Frame {
   public:
    explicit Frame(Workspace& workspace);
    ~Frame();
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    // Aligned to 256 bytes; contents are undefined. Throws DeviceError when there is not enough.
    template <typename T>
    T* get(std::int64_t count) {
      return static_cast<T*>(workspace_.take(static_cast<std::size_t>(count) * sizeof(T)));
    }

   private:
    Workspace& workspace_;
    std::size_t chunk_, used_, taken_;  // of the workspace when the frame began
  };

 private:
  struct Chunk {
    std::byte* data;
    std::size_t bytes;
  };
  void* take(std::size_t bytes);

  std::vector<Chunk> chunks_;         // after the first frame of the largest operation: one
  std::size_t chunk_ = 0, used_ = 0;  // where the next memory is
  int frames_ = 0;
  std::size_t taken_ = 0, most_ = 0;  // bytes that frames hold now, and the most they ever held
  std::int64_t generation_ = 0;
};

}  // namespace bitnet::cuda
