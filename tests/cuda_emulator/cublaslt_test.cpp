// SPDX-License-Identifier: MIT
// cuBLASLt: opening the library, and what the emulated one computes and refuses.
#include "cuda/cublaslt.h"

#include <cuda_bf16.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/cuda_emulator/device_array.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/support/catch.h"

namespace bitnet::cuda {
namespace {

using test::DeviceArray;

TEST_CASE("An absent cuBLASLt is an error with words") {
  const char* const names[] = {"libnothing_of_this_name.so.13", "/nowhere/libnothing.so"};
  const CublasLtLibrary library = open_cublaslt(names);
  CHECK(!library.usable);
  CHECK(library.error.find("cuBLASLt was not found (libnothing_of_this_name.so.13") == 0);
}

TEST_CASE("A library without the functions of cuBLASLt is an error with words") {
  const char* const names[] = {"libnothing_of_this_name.so.13", "libm.so.6"};
  const CublasLtLibrary library = open_cublaslt(names);
  CHECK(!library.usable);
  CHECK(library.error.find("cuBLASLt lacks cublasLtGetVersion") == 0);
}

// y [n, m] row-major = x [n, k] w [m, k]ᵀ; to cuBLASLt, column-major, it is D = op(A) B with A = w.
struct Product {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32I;
  cudaDataType_t scale_type = CUDA_R_32I, input = CUDA_R_8I, output = CUDA_R_32I;
  cublasOperation_t transpose_a = CUBLAS_OP_T;
  cublasLtOrder_t order_a = CUBLASLT_ORDER_COL;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  std::uint64_t m = 12, n = 5, k = 16;
  std::uint64_t workspace = 1 << 20;
  std::uint32_t alignment = 16;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;  // any

  // The status of the heuristic, or of the product itself.
  cublasStatus_t run(const void* a, const void* b, void* d, void* scratch, cudaStream_t stream,
                     float alpha = 1, float beta = 0) const {
    const CublasLtApi& lt = installed_cublaslt().api;
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t description = nullptr;
    cublasLtMatrixLayout_t la = nullptr, lb = nullptr, ld = nullptr;
    cublasLtMatmulPreference_t preference = nullptr;
    lt.Create(&handle);
    lt.MatmulDescCreate(&description, compute, scale_type);
    lt.MatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &transpose_a,
                              sizeof transpose_a);
    lt.MatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                              sizeof epilogue);
    const bool transposed = transpose_a == CUBLAS_OP_T;
    const std::uint64_t a_rows = transposed ? k : m, a_columns = transposed ? m : k;
    lt.MatrixLayoutCreate(&la, input, a_rows, a_columns, static_cast<std::int64_t>(a_rows));
    lt.MatrixLayoutSetAttribute(la, CUBLASLT_MATRIX_LAYOUT_ORDER, &order_a, sizeof order_a);
    lt.MatrixLayoutCreate(&lb, input, k, n, static_cast<std::int64_t>(k));
    lt.MatrixLayoutCreate(&ld, output, m, n, static_cast<std::int64_t>(m));
    lt.MatmulPreferenceCreate(&preference);
    lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                    &workspace, sizeof workspace);
    lt.MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                    &reductions, sizeof reductions);
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      lt.MatmulPreferenceSetAttribute(preference, attribute, &alignment, sizeof alignment);
    }
    cublasLtMatmulHeuristicResult_t choice{};
    int found = 0;
    cublasStatus_t status = lt.MatmulAlgoGetHeuristic(handle, description, la, lb, ld, ld,
                                                      preference, 1, &choice, &found);
    if (status == CUBLAS_STATUS_SUCCESS) {
      const std::int32_t alpha_int = static_cast<std::int32_t>(alpha);
      const std::int32_t beta_int = static_cast<std::int32_t>(beta);
      const bool integer = scale_type == CUDA_R_32I;
      status =
          lt.Matmul(handle, description, integer ? static_cast<const void*>(&alpha_int) : &alpha, a,
                    la, b, lb, integer ? static_cast<const void*>(&beta_int) : &beta, d, ld, d, ld,
                    &choice.algo, scratch, choice.workspaceSize, stream);
    }
    lt.MatmulPreferenceDestroy(preference);
    for (cublasLtMatrixLayout_t layout : {la, lb, ld}) lt.MatrixLayoutDestroy(layout);
    lt.MatmulDescDestroy(description);
    lt.Destroy(handle);
    return status;
  }
};

std::vector<std::int8_t> random_codes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int8_t> x(count);
  for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  return x;
}

struct Int8Memory {
  std::vector<std::int8_t> w_host = random_codes(12 * 16, 1), x_host = random_codes(5 * 16, 2);
  DeviceArray<std::int8_t> w{w_host}, x{x_host};
  DeviceArray<std::int32_t> y{std::vector<std::int32_t>(12 * 5, 1000)};
  DeviceArray<char> scratch{1 << 20};
  test::Stream stream;

  std::vector<std::int32_t> expected(std::int32_t alpha, std::int32_t beta) const {
    std::vector<std::int32_t> sums;
    for (std::size_t j = 0; j < 5; ++j) {
      for (std::size_t i = 0; i < 12; ++i) {
        std::int32_t sum = 0;
        for (std::size_t k = 0; k < 16; ++k) sum += w_host[i * 16 + k] * x_host[j * 16 + k];
        sums.push_back(alpha * sum + beta * 1000);
      }
    }
    return sums;
  }
  cublasStatus_t run(const Product& p, float alpha = 1, float beta = 0) {
    return p.run(w.data(), x.data(), y.data(), scratch.data(), stream, alpha, beta);
  }
};

TEST_CASE("cuBLASLt's int8 product is exact") {
  emulator::reset();
  Int8Memory memory;
  CHECK(memory.run(Product{}) == CUBLAS_STATUS_SUCCESS);
  CHECK(memory.y.to_host() == memory.expected(1, 0));
}

TEST_CASE("cuBLASLt's int8 product takes integer alpha and beta") {
  emulator::reset();
  Int8Memory memory;
  CHECK(memory.run(Product{}, 3, -2) == CUBLAS_STATUS_SUCCESS);
  CHECK(memory.y.to_host() == memory.expected(3, -2));
}

TEST_CASE("cuBLASLt refuses int8 products that the library does not support") {
  emulator::reset();
  Int8Memory memory;
  const auto status = [&](auto change) {
    Product p;
    change(p);
    return memory.run(p);
  };
  CHECK(status([](Product& p) { p.transpose_a = CUBLAS_OP_N; }) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(status([](Product& p) { p.k = 14; }) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(status([](Product& p) { p.m = 10; }) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(status([](Product& p) { p.output = CUDA_R_16BF; }) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(status([](Product& p) { p.scale_type = CUDA_R_32F; }) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(status([](Product& p) { p.epilogue = CUBLASLT_EPILOGUE_BIAS; }) ==
        CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(status([](Product& p) { p.order_a = CUBLASLT_ORDER_COL32; }) ==
        CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(status([](Product&) {}) == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("cuBLASLt refuses pointers that do not keep what the heuristic was told") {
  emulator::reset();
  Int8Memory memory;
  Product p;
  p.m = 8;  // room to move
  const auto run = [&](int offset, void* scratch) {
    return p.run(memory.w.data() + offset, memory.x.data(), memory.y.data(), scratch,
                 memory.stream);
  };
  CHECK(run(0, memory.scratch.data()) == CUBLAS_STATUS_SUCCESS);
  CHECK(run(8, memory.scratch.data()) == CUBLAS_STATUS_INVALID_VALUE);  // 16 were promised
  CHECK(run(0, nullptr) == CUBLAS_STATUS_INVALID_VALUE);                // workspace was promised
  p.alignment = 4;
  CHECK(run(8, memory.scratch.data()) == CUBLAS_STATUS_SUCCESS);
  CHECK(run(80, memory.scratch.data()) == CUBLAS_STATUS_INVALID_VALUE);  // ends outside w
}

// Whether a product is summed in fp32, and rounded once where it is narrow.
bool rounds_once(bool narrow, bool transposed, std::uint32_t reductions) {
  // Multiples of 1/8 below 16: every sum is exact in fp32, so that its order does not matter.
  const auto w_codes = random_codes(12 * 16, 3), x_codes = random_codes(5 * 16, 4);
  const auto widen = [](const std::vector<std::int8_t>& codes) {
    std::vector<__nv_bfloat16> x;
    for (const std::int8_t c : codes) x.push_back(__float2bfloat16_rn(static_cast<float>(c) / 8));
    return x;
  };
  DeviceArray<__nv_bfloat16> w(widen(w_codes)), x(widen(x_codes));
  DeviceArray<char> scratch(1 << 20);
  DeviceArray<float> y(12 * 5);
  DeviceArray<__nv_bfloat16> y_narrow(12 * 5);
  const test::Stream stream;
  Product p;
  p.compute = CUBLAS_COMPUTE_32F;
  p.scale_type = CUDA_R_32F;
  p.input = CUDA_R_16BF;
  p.output = narrow ? CUDA_R_16BF : CUDA_R_32F;
  p.transpose_a = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  p.reductions = reductions;
  void* to = narrow ? static_cast<void*>(y_narrow.data()) : y.data();
  REQUIRE(p.run(w.data(), x.data(), to, scratch.data(), stream, 0.5f) == CUBLAS_STATUS_SUCCESS);

  std::vector<float> expected, actual;
  for (std::size_t j = 0; j < 5; ++j) {
    for (std::size_t i = 0; i < 12; ++i) {
      float sum = 0;
      for (std::size_t k = 0; k < 16; ++k) {
        const std::int8_t a = transposed ? w_codes[i * 16 + k] : w_codes[k * 12 + i];
        sum += static_cast<float>(a) / 8 * (static_cast<float>(x_codes[j * 16 + k]) / 8);
      }
      sum *= 0.5f;
      expected.push_back(narrow ? __bfloat162float(__float2bfloat16_rn(sum)) : sum);
    }
  }
  if (narrow) {
    for (const __nv_bfloat16 v : y_narrow.to_host()) actual.push_back(__bfloat162float(v));
  } else {
    actual = y.to_host();
  }
  return actual == expected;
}

TEST_CASE("cuBLASLt's bf16 products accumulate in fp32") {
  emulator::reset();
  const bool transposed = GENERATE(false, true);
  CHECK(rounds_once(false, transposed, CUBLASLT_REDUCTION_SCHEME_MASK));
  CHECK(rounds_once(true, transposed, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
}

TEST_CASE(
    "cuBLASLt may round the parts of a sum where the result is bf16 and any reduction will do",
    "[emulator]") {
  emulator::reset();
  CHECK(!rounds_once(true, true, CUBLASLT_REDUCTION_SCHEME_MASK));
}

}  // namespace
}  // namespace bitnet::cuda
