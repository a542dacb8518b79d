// SPDX-License-Identifier: MIT
// How quickly the emulator executes kernels; hidden, run by "bitnet_emulator_tests [speed]".
#include <chrono>
#include <cstdio>
#include <vector>

#include "cuda/int8_gemm.h"
#include "cuda/norm_quantize.h"
#include "cuda/packed_gemv.h"
#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::DeviceArray;

template <typename Launch>
void measure(const char* name, Launch launch) {
  emulator::statistics() = {};
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(launch() == cudaSuccess);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const emulator::Statistics& s = emulator::statistics();
  std::printf("%-28s %7.3f s  %8llu threads  %6.2f M threads/s  %6.2f M switches/s\n", name,
              seconds, static_cast<unsigned long long>(s.threads),
              static_cast<double>(s.threads) / seconds / 1e6,
              static_cast<double>(s.switches) / seconds / 1e6);
}

void measure_all() {
  DeviceArray<std::int8_t> codes(std::vector<std::int8_t>(2048 * 1024, 1));
  DeviceArray<float> x(std::vector<float>(2048 * 1024, 0.5f)),
      scales(std::vector<float>(2048, 1.0f));
  DeviceArray<float> y(2048 * 1024);
  DeviceArray<std::uint8_t> packed(std::vector<std::uint8_t>(1024 * 2048, 0x55));
  const auto gemm = [&](Int8GemmTile tile) {
    Int8Gemm p{};
    p.a = p.b = codes.data();
    p.rows = p.columns = p.depth = 512;
    p.scale = p.row_scale = scales.data();
    p.y = y.data();
    return int8_gemm(p, tile, nullptr);
  };
  measure("int8_gemm 512^3, large tile", [&] { return gemm(Int8GemmTile::large); });
  measure("int8_gemm 512^3, small tile", [&] { return gemm(Int8GemmTile::small); });
  measure("norm_quantize 2048 x 1024", [&] {
    const NormQuantize<PlainRows> op{{x.data()},   {RowNormKind::rms, nullptr, 1e-5f},
                                     y.data(),     nullptr,
                                     codes.data(), scales.data(),
                                     2048,         1024};
    return norm_quantize(op, nullptr);
  });
  measure("packed_gemv 4096 x 2048", [&] {
    PackedGemv gemv{codes.data(), scales.data(), 1, 2048, 1, {}};
    gemv.matrix[0] = {packed.data(), scales.data(), 4096, 0, nullptr, y.data()};
    return packed_gemv(gemv, nullptr);
  });
}

TEST_CASE("The emulator's speed", "[.][speed]") {
  emulator::reset();
  std::printf("forward\n");
  measure_all();
  emulator::reset();
  emulator::config().schedule = emulator::Schedule::random;
  std::printf("random\n");
  measure_all();
  emulator::reset();
}

}  // namespace
}  // namespace bitnet::cuda
