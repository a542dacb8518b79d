// SPDX-License-Identifier: MIT
// Memory, copies and recorded operations.
#include <cuda_runtime_api.h>

#include <numeric>

#include "cuda/cuda_backend.h"
#include "cuda/workspace.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/executions.h"
#include "tests/support/catch.h"
#include "tests/support/tensors.h"

namespace bitnet {
namespace {

using test::floats_of;
using test::to_device;

TEST_CASE("a new tensor on the GPU is zero, and copies come back as they went") {
  test::in_each_execution([] {
    const auto gpu = make_cuda_backend();
    CHECK(gpu->name() == "cuda");
    for (const std::int64_t count : {1, 7, 1000, 100'000}) {  // staged, and too large for it
      INFO(count);
      Tensor x = gpu->make_tensor(DType::f32, {count});
      CHECK(floats_of(*gpu, x) == std::vector<float>(static_cast<std::size_t>(count)));
      std::vector<float> values(static_cast<std::size_t>(count));
      std::iota(values.begin(), values.end(), 1.0f);
      gpu->copy_from_host(values.data(), x);
      const std::vector<float> sent = values;
      std::fill(values.begin(), values.end(), 0.0f);  // the source may change at once
      Tensor y = gpu->make_tensor(DType::f32, {count});
      gpu->copy(x, y);
      gpu->zero(x);
      CHECK(floats_of(*gpu, y) == sent);
      CHECK(floats_of(*gpu, x) == values);
    }
  });
}

TEST_CASE("synchronize() returns when everything that was issued is done", "[emulator]") {
  emulator::reset();  // streams do nothing before something waits for them
  {
    const auto gpu = make_cuda_backend();
    Tensor x = gpu->make_tensor(DType::f32, {8});
    gpu->synchronize();
    const std::uint64_t before = emulator::statistics().launches;
    gpu->add(x, x, x);
    CHECK(emulator::statistics().launches == before);
    gpu->synchronize();
    CHECK(emulator::statistics().launches == before + 1);
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE("memory that the GPU does not have is an error that says how much was wanted") {
  emulator::reset();
  {
    const auto gpu = make_cuda_backend();
    CHECK_THROWS_WITH(gpu->allocate(std::int64_t{1} << 40),
                      Catch::Matchers::Contains("1099511.6 MB wanted"));
    CHECK_THROWS_AS(gpu->allocate(std::int64_t{1} << 40), DeviceError);
    CHECK(floats_of(*gpu, gpu->make_tensor(DType::f32, {2})) == std::vector<float>(2));
  }
  CHECK(emulator::reset() == 0);
}

TEST_CASE("without a usable GPU the reason is one line", "[emulator]") {
  emulator::reset();
  emulator::config().device.state = cudaErrorNoDevice;
  CHECK(why_no_cuda(find_cuda_devices()) == "the NVIDIA driver finds no GPU");
  CHECK_THROWS_AS(make_cuda_backend(), DeviceError);
  emulator::reset();
  emulator::config().device.compute_major = 7;
  emulator::config().device.compute_minor = 5;
  CHECK(why_no_cuda(find_cuda_devices()) ==
        "GPU 0 (CUDA emulator): compute capability 7.5, but 8.0 (Ampere) or later is needed");
  emulator::reset();
  CHECK(why_no_cuda(find_cuda_devices()).empty());
  CHECK(find_cuda_devices().devices.at(0).architecture == "sm_90");
}

TEST_CASE("a workspace hands out memory of its own within a frame, and the same again after it") {
  test::in_each_execution([] {
    cuda::Workspace workspace;
    void *first = nullptr, *second = nullptr;
    {
      cuda::Workspace::Frame frame(workspace);
      first = frame.get<float>(1000);
      second = frame.get<std::byte>(3 << 20);  // more than the first piece has left
      CHECK(first != second);
      cuda::Workspace::Frame inner(workspace);
      CHECK(inner.get<float>(1) != second);
    }
    const std::int64_t generation = workspace.generation();
    workspace.settle();
    CHECK(workspace.generation() == generation + 1);
    for (int i = 0; i < 2; ++i) {
      cuda::Workspace::Frame frame(workspace);
      auto* const a = frame.get<std::byte>(4000);
      auto* const b = frame.get<std::byte>(3 << 20);
      CHECK(b == a + 4096);
      CHECK(workspace.generation() == generation + 1);
    }
  });
}

// A cache of rows of 16 numbers, to which recorded operations append.
class RecordedRows {
 public:
  explicit RecordedRows(Backend& backend) : backend_(backend) {}

  void append(const std::vector<float>& row, int position) {
    backend_.copy_from_host(row.data(), row_);
    backend_.repeat(record_, position, [&] {
      ++calls;
      backend_.rope_append(q_, k_, row_, table_, position, keys_, rows_);
    });
  }
  std::vector<float> all() { return floats_of(backend_, rows_); }

  int calls = 0;

 private:
  Tensor make(Shape shape) { return backend_.make_tensor(DType::f32, shape); }

  Backend& backend_;
  Tensor q_ = make({1, 1, 1, 16}), k_ = make({1, 1, 1, 16}), row_ = make({1, 1, 1, 16}),
         table_ = make({16, 16}), keys_ = make({16, 1, 16}), rows_ = make({16, 1, 16});
  std::unique_ptr<RecordedOperations> record_;
};

TEST_CASE("recorded operations run again at another position") {
  test::in_each_execution([] {
    const auto gpu = make_cuda_backend();
    RecordedRows rows(*gpu);
    std::vector<float> expected(256, 0.0f);
    for (int position = 0; position < 6; ++position) {
      std::vector<float> values(16);
      std::iota(values.begin(), values.end(), static_cast<float>(20 * position + 1));
      std::copy(values.begin(), values.end(), expected.begin() + 16 * position);
      rows.append(values, position);
    }
    CHECK(rows.all() == expected);
    CHECK(rows.calls == 2);  // to warm up and to record
  });
}

TEST_CASE("recorded operations without a position run again on what their tensors hold then") {
  test::in_each_execution([] {
    const auto gpu = make_cuda_backend();
    Tensor x = gpu->make_tensor(DType::f32, {8}), sum = gpu->make_tensor(DType::f32, {8});
    std::unique_ptr<RecordedOperations> record;
    int calls = 0;
    std::vector<float> expected(8, 0.0f);
    for (int step = 0; step < 5; ++step) {
      const std::vector<float> values(8, static_cast<float>(step + 1));
      for (float& e : expected) e = (e + values[0]) + values[0];
      gpu->copy_from_host(values.data(), x);
      gpu->repeat(record, std::nullopt, [&] {
        ++calls;
        gpu->add(sum, x, sum);
        gpu->add(sum, x, sum);
      });
    }
    CHECK(floats_of(*gpu, sum) == expected);
    CHECK(calls == 2);  // to warm up and to record
  });
}

TEST_CASE("operations whose record the device has no memory for are issued each time",
          "[emulator]") {
  emulator::reset();
  {
    const auto gpu = make_cuda_backend();
    RecordedRows rows(*gpu);
    const auto step = [&](int position) {
      rows.append(std::vector<float>(16, static_cast<float>(position + 1)), position);
    };
    step(0);
    std::size_t available = 0, all = 0;
    REQUIRE(cudaMemGetInfo(&available, &all) == cudaSuccess);
    emulator::config().device.memory_bytes -= available;
    step(1);
    CHECK(rows.calls == 3);  // to warm up, to record, to do it
    step(2);
    CHECK(rows.calls == 4);
    const std::vector<float> appended = rows.all();
    for (std::size_t i = 0; i < appended.size(); ++i)
      CHECK(appended[i] == (i < 48 ? static_cast<float>(i / 16 + 1) : 0.0f));
  }
  CHECK(emulator::reset() == 0);
}

}  // namespace
}  // namespace bitnet
