// SPDX-License-Identifier: MIT
// cuBLASLt is column-major: what it calls D [n, m] = op(A) op(B) with A = b [k, n] transposed and
// B = a [k, m] as it is, is our y [m, n] row by row. This "TN" is its only layout for int8. An operand
// that is contiguous along its rows is A = b [n, k] as it is, or B = a [m, k] transposed.
#include "cuda/matrix_products.h"

#include <map>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/cublaslt.h"

namespace bitnet::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = 32 << 20;  // what NVIDIA recommends for Hopper
constexpr std::uint32_t kAlignment = 16;           // of every pointer, in bytes

struct Types {
  cudaDataType_t input, output;
  cublasComputeType_t compute;
  cudaDataType_t scale;  // of alpha and beta
};
constexpr Types kInt8{CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, CUDA_R_32I};
constexpr Types kBf16ToF32{CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F};
constexpr Types kBf16ToBf16{CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F};

// A handle of cuBLASLt; T is what the handle points to.
template <typename T>
using Owned = std::unique_ptr<T, cublasStatus_t (*)(T*)>;

template <typename T, typename... Arguments>
Owned<T> make(cublasStatus_t (*create)(T**, Arguments...), cublasStatus_t (*destroy)(T*),
              std::type_identity_t<Arguments>... arguments) {
  T* made = nullptr;
  if (create(&made, arguments...) != CUBLAS_STATUS_SUCCESS) made = nullptr;
  return {made, destroy};
}

// All that cuBLASLt wants to be told about products of one shape.
struct Plan {
  Owned<cublasLtMatmulDescOpaque_t> description;
  Owned<cublasLtMatrixLayoutOpaque_t> a, b, d;
  cublasLtMatmulAlgo_t algorithm{};
  std::size_t workspace_bytes = 0;
  bool found = false;  // an algorithm

  Plan(const CublasLtApi& lt, cublasLtHandle_t handle, const Types& types,
       const MatrixShape& shape);
};

Plan::Plan(const CublasLtApi& lt, cublasLtHandle_t handle, const Types& types,
           const MatrixShape& shape)
    : description(make(lt.MatmulDescCreate, lt.MatmulDescDestroy, types.compute, types.scale)),
      a(nullptr, lt.MatrixLayoutDestroy),
      b(nullptr, lt.MatrixLayoutDestroy),
      d(nullptr, lt.MatrixLayoutDestroy) {
  const auto m = static_cast<std::uint64_t>(shape.m), n = static_cast<std::uint64_t>(shape.n),
             k = static_cast<std::uint64_t>(shape.k);
  const auto layout = [&](cudaDataType_t type, std::uint64_t rows, std::uint64_t columns) {
    return make(lt.MatrixLayoutCreate, lt.MatrixLayoutDestroy, type, rows, columns,
                static_cast<std::int64_t>(rows));
  };
  const bool b_along_k = shape.b == OperandOrder::along_k,
             a_along_k = shape.a == OperandOrder::along_k;
  a = b_along_k ? layout(types.input, k, n) : layout(types.input, n, k);
  b = a_along_k ? layout(types.input, k, m) : layout(types.input, m, k);
  d = layout(types.output, n, m);
  const auto preference = make(lt.MatmulPreferenceCreate, lt.MatmulPreferenceDestroy);
  if (!description || !a || !b || !d || !preference) return;

  const cublasOperation_t transpose_a = b_along_k ? CUBLAS_OP_T : CUBLAS_OP_N,
                          transpose_b = a_along_k ? CUBLAS_OP_N : CUBLAS_OP_T;
  const std::uint64_t workspace = kWorkspaceBytes;
  bool set = lt.MatmulDescSetAttribute(description.get(), CUBLASLT_MATMUL_DESC_TRANSA, &transpose_a,
                                       sizeof transpose_a) == CUBLAS_STATUS_SUCCESS &&
             lt.MatmulDescSetAttribute(description.get(), CUBLASLT_MATMUL_DESC_TRANSB, &transpose_b,
                                       sizeof transpose_b) == CUBLAS_STATUS_SUCCESS;
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    set = set && lt.MatmulPreferenceSetAttribute(preference.get(), attribute, &value,
                                                 sizeof value) == CUBLAS_STATUS_SUCCESS;
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(attribute, kAlignment);
  }
  if (types.output == CUDA_R_16BF) {  // parts of a sum may not meet there: each would be rounded
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  }
  cublasLtMatmulHeuristicResult_t best{};
  int count = 0;
  found = set &&
          lt.MatmulAlgoGetHeuristic(handle, description.get(), a.get(), b.get(), d.get(), d.get(),
                                    preference.get(), 1, &best, &count) == CUBLAS_STATUS_SUCCESS &&
          count == 1 && best.state == CUBLAS_STATUS_SUCCESS;
  algorithm = best.algo;
  workspace_bytes = best.workspaceSize;
}

bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % kAlignment == 0;
}

// Whether the lines of bf16 operands begin at 16 bytes, as the algorithms are told that they do.
bool has_aligned_lines(const MatrixShape& s) {
  constexpr std::int64_t kElements = kAlignment / sizeof(__nv_bfloat16);
  const auto aligned = [&](OperandOrder order, std::int64_t rows) {
    return order == OperandOrder::along_k || rows % kElements == 0;
  };
  return aligned(s.a, s.m) && aligned(s.b, s.n);
}

}  // namespace

struct MatrixProducts::State {
  cudaStream_t stream;
  bool opened = false;
  std::string unusable;
  CublasLtApi lt;
  Owned<cublasLtContext> handle{nullptr, nullptr};
  void* workspace = nullptr;
  std::map<std::tuple<cudaDataType_t, cudaDataType_t, MatrixShape>, Plan> plans;  // input, output

  explicit State(cudaStream_t s) : stream(s) {}
  ~State() {
    plans.clear();
    if (workspace != nullptr) static_cast<void>(cudaFree(workspace));
  }

  bool usable() {
    if (!std::exchange(opened, true)) open();
    return unusable.empty();
  }

  void open() {
    const CublasLtLibrary& library = installed_cublaslt();
    if (!library.usable) {
      unusable = library.error;
      return;
    }
    lt = library.api;
    handle = make(lt.Create, lt.Destroy);
    if (!handle) {
      unusable = "cuBLASLt does not work on this device";
    } else if (cudaMalloc(&workspace, kWorkspaceBytes) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());  // known: not for the next check of a launch
      workspace = nullptr;
      unusable = "no device memory is left for cuBLASLt";
    }
  }

  template <typename Scale>  // the type of alpha and beta
  bool multiply(const Types& types, const MatrixShape& shape, const void* a, const void* b, void* y,
                bool accumulate) {
    if (!aligned(a) || !aligned(b) || !aligned(y) || !usable()) return false;
    const auto [place, made] =
        plans.try_emplace({types.input, types.output, shape}, lt, handle.get(), types, shape);
    const Plan& plan = place->second;
    const Scale alpha = 1, beta = accumulate ? 1 : 0;
    return plan.found &&
           lt.Matmul(handle.get(), plan.description.get(), &alpha, b, plan.a.get(), a, plan.b.get(),
                     &beta, y, plan.d.get(), y, plan.d.get(), &plan.algorithm, workspace,
                     plan.workspace_bytes, stream) == CUBLAS_STATUS_SUCCESS;
  }
};

MatrixProducts::MatrixProducts(cudaStream_t stream) : state_(new State(stream)) {}
MatrixProducts::~MatrixProducts() = default;

const std::string& MatrixProducts::unusable() {
  state_->usable();
  return state_->unusable;
}

bool MatrixProducts::int8(const MatrixShape& shape, const std::int8_t* a, const std::int8_t* b,
                          std::int32_t* y) {
  return state_->multiply<std::int32_t>(kInt8, shape, a, b, y, false);
}

bool MatrixProducts::bf16(const MatrixShape& shape, const __nv_bfloat16* a, const __nv_bfloat16* b,
                          const Reals& y, bool accumulate) {
  return has_aligned_lines(shape) && state_->multiply<float>(y.bf16 ? kBf16ToBf16 : kBf16ToF32,
                                                             shape, a, b, y.data, accumulate);
}

}  // namespace bitnet::cuda
