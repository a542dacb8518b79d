// SPDX-License-Identifier: MIT
// The emulated cuBLASLt: the functions of cuda/cublaslt.h with the real prototypes. It computes
// what NVIDIA documents and refuses what it documents as unsupported, so that a wrong set-up of a
// product fails here too. Column-major as the original: "rows" run along a column.
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "cuda/cublaslt.h"
#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/streams.h"

namespace bitnet::emulator {
namespace {

struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale_type;
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtPointerMode_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
};

struct Layout {
  cudaDataType_t type;
  std::uint64_t rows, columns;
  std::int64_t leading;  // elements between columns
  cublasLtOrder_t order = CUBLASLT_ORDER_COL;
  std::int32_t batch = 1;
  std::int64_t batch_stride = 0;
};

struct Preference {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
  std::uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;  // all of them
};

// What cublasLtMatmulAlgo_t holds here: the promises that the choice of an algorithm relies on.
struct Algorithm {
  std::uint64_t mark;
  Preference promised;
  std::uint64_t workspace_bytes;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

constexpr std::uint64_t kAlgorithmMark = 0x656d756c61746564;
constexpr std::uint64_t kWorkspaceWanted = 1 << 16;  // by the algorithm, if it may have that much

struct Product {
  Description description;
  Layout a, b, c, d;

  bool integer() const { return description.compute == CUBLAS_COMPUTE_32I; }
  std::uint64_t m() const { return d.rows; }
  std::uint64_t n() const { return d.columns; }
  std::uint64_t k() const { return description.transpose_a == CUBLAS_OP_N ? a.columns : a.rows; }
};

template <typename Object, typename Handle>
Object& object(Handle handle) {
  return *reinterpret_cast<Object*>(handle);
}

template <typename Field>
cublasStatus_t set(Field& field, const void* value, std::size_t bytes) {
  if (bytes != sizeof field) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

std::size_t element_bytes(cudaDataType_t type) {
  return type == CUDA_R_8I ? 1 : type == CUDA_R_16BF ? 2 : 4;
}

// Bytes from the first to behind the last element.
std::size_t span_bytes(const Layout& l) {
  const auto elements = static_cast<std::int64_t>(l.columns - 1) * l.leading +
                        static_cast<std::int64_t>(l.rows) + (l.batch - 1) * l.batch_stride;
  return static_cast<std::size_t>(elements) * element_bytes(l.type);
}

// --- what is supported ---

cublasStatus_t check_shapes(const Product& p) {
  const Description& d = p.description;
  const std::uint64_t m = d.transpose_a == CUBLAS_OP_N ? p.a.rows : p.a.columns;
  const std::uint64_t k = d.transpose_b == CUBLAS_OP_N ? p.b.rows : p.b.columns;
  const std::uint64_t n = d.transpose_b == CUBLAS_OP_N ? p.b.columns : p.b.rows;
  if (m != p.m() || n != p.n() || k != p.k() || p.c.rows != m || p.c.columns != n ||
      p.c.type != p.d.type) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  for (const Layout* l : {&p.a, &p.b, &p.c, &p.d}) {
    if (l->order != CUBLASLT_ORDER_COL) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (l->rows == 0 || l->columns == 0 || l->leading < static_cast<std::int64_t>(l->rows) ||
        l->batch != p.d.batch || l->batch < 1) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

// The IMMA kernels: regular order, TN, everything in fours; int32 out of an int32 scale, or int8
// out of an fp32 scale. No epilogue.
bool supports_int8(const Product& p) {
  const Description& d = p.description;
  const bool types = p.a.type == CUDA_R_8I && p.b.type == CUDA_R_8I &&
                     ((p.d.type == CUDA_R_32I && d.scale_type == CUDA_R_32I) ||
                      (p.d.type == CUDA_R_8I && d.scale_type == CUDA_R_32F));
  const bool transposed = d.transpose_a == CUBLAS_OP_T && d.transpose_b == CUBLAS_OP_N;
  return types && transposed && p.m() % 4 == 0 && p.k() % 4 == 0 && p.a.leading % 4 == 0 &&
         p.b.leading % 4 == 0 && p.c.leading % 4 == 0 && p.d.leading % 4 == 0;
}

bool supports_float(const Product& p) {
  const Description& d = p.description;
  const bool inputs = p.a.type == p.b.type && (p.a.type == CUDA_R_16BF || p.a.type == CUDA_R_32F);
  const bool output = p.d.type == p.a.type || p.d.type == CUDA_R_32F;
  return d.compute == CUBLAS_COMPUTE_32F && d.scale_type == CUDA_R_32F && inputs && output;
}

cublasStatus_t check(const Product& p) {
  if (const cublasStatus_t status = check_shapes(p); status != CUBLAS_STATUS_SUCCESS) return status;
  const bool supported = p.description.epilogue == CUBLASLT_EPILOGUE_DEFAULT &&
                         p.description.pointer_mode == CUBLASLT_POINTER_MODE_HOST &&
                         (p.integer() ? supports_int8(p) : supports_float(p));
  return supported ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// --- computing ---

float load(const void* from, std::int64_t index, cudaDataType_t type) {
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(from)[index]);
  return static_cast<const float*>(from)[index];
}

void store(void* to, std::int64_t index, cudaDataType_t type, float value) {
  if (type == CUDA_R_16BF) {
    static_cast<__nv_bfloat16*>(to)[index] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(to)[index] = value;
  }
}

// Row i of op(A) or column j of op(B), as fp32, contiguous along k.
std::vector<float> unpack(const Layout& l, bool k_is_leading, const void* from, std::int64_t batch,
                          std::uint64_t outer, std::uint64_t k) {
  std::vector<float> lines(outer * k);
  for (std::uint64_t i = 0; i < outer; ++i) {
    for (std::uint64_t x = 0; x < k; ++x) {
      const auto row = static_cast<std::int64_t>(k_is_leading ? x : i);
      const auto column = static_cast<std::int64_t>(k_is_leading ? i : x);
      lines[i * k + x] = load(from, batch * l.batch_stride + column * l.leading + row, l.type);
    }
  }
  return lines;
}

struct Operands {
  const void *a, *b, *c;
  void* d;
};

// With `bf16_parts` the two halves of a sum meet in the output.
void multiply_floats(const Product& p, const Operands& at, float alpha, float beta,
                     bool bf16_parts) {
  for (std::int64_t batch = 0; batch < p.d.batch; ++batch) {
    const auto a = unpack(p.a, p.description.transpose_a != CUBLAS_OP_N, at.a, batch, p.m(), p.k());
    const auto b = unpack(p.b, p.description.transpose_b == CUBLAS_OP_N, at.b, batch, p.n(), p.k());
    for (std::uint64_t j = 0; j < p.n(); ++j) {
      for (std::uint64_t i = 0; i < p.m(); ++i) {
        float sum = 0;
        for (std::uint64_t x = 0; x < p.k(); ++x) {
          if (bf16_parts && x == p.k() / 2) sum = __bfloat162float(__float2bfloat16_rn(sum));
          sum += a[i * p.k() + x] * b[j * p.k() + x];
        }
        const auto row = static_cast<std::int64_t>(i), column = static_cast<std::int64_t>(j);
        float result = alpha * sum;
        if (beta != 0) {  // C is not read otherwise
          const std::int64_t from = batch * p.c.batch_stride + column * p.c.leading + row;
          result += beta * load(at.c, from, p.c.type);
        }
        store(at.d, batch * p.d.batch_stride + column * p.d.leading + row, p.d.type, result);
      }
    }
  }
}

template <typename Scale, typename Output>
void multiply_int8(const Product& p, const Operands& at, Scale alpha, Scale beta) {
  for (std::int64_t batch = 0; batch < p.d.batch; ++batch) {
    for (std::uint64_t j = 0; j < p.n(); ++j) {
      for (std::uint64_t i = 0; i < p.m(); ++i) {
        const auto row = static_cast<std::int64_t>(i), column = static_cast<std::int64_t>(j);
        const auto* a =
            static_cast<const std::int8_t*>(at.a) + batch * p.a.batch_stride + row * p.a.leading;
        const auto* b =
            static_cast<const std::int8_t*>(at.b) + batch * p.b.batch_stride + column * p.b.leading;
        std::int32_t sum = 0;
        for (std::uint64_t x = 0; x < p.k(); ++x) sum += a[x] * b[x];
        Scale result = alpha * static_cast<Scale>(sum);
        if (beta != 0) {
          const std::int64_t from = batch * p.c.batch_stride + column * p.c.leading + row;
          result += beta * static_cast<Scale>(static_cast<const Output*>(at.c)[from]);
        }
        if constexpr (sizeof(Output) == 1) {
          result = std::clamp(std::nearbyint(result), Scale{-128}, Scale{127});
        }
        const std::int64_t to = batch * p.d.batch_stride + column * p.d.leading + row;
        static_cast<Output*>(at.d)[to] = static_cast<Output>(result);
      }
    }
  }
}

// Whether parts of a sum may meet in an output of bf16, in place or beside it.
bool may_round_parts(const Product& p, const cublasLtMatmulAlgo_t* choice) {
  Algorithm algorithm{};
  if (choice != nullptr) std::memcpy(static_cast<void*>(&algorithm), choice, sizeof algorithm);
  constexpr std::uint32_t kInOutput =
      CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  return p.d.type == CUDA_R_16BF && (algorithm.promised.reduction_schemes & kInOutput) != 0;
}

Work work_of(const Product& p, const Operands& at, const void* alpha, const void* beta,
             const cublasLtMatmulAlgo_t* choice) {
  const auto read = [](const void* from, auto value) {
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  if (p.description.scale_type == CUDA_R_32I) {
    const auto scale = read(alpha, std::int32_t{}), keep = read(beta, std::int32_t{});
    return [=] { multiply_int8<std::int32_t, std::int32_t>(p, at, scale, keep); };
  }
  const float scale = read(alpha, 0.0f), keep = read(beta, 0.0f);
  if (p.integer()) return [=] { multiply_int8<float, std::int8_t>(p, at, scale, keep); };
  const bool bf16_parts = may_round_parts(p, choice);
  return [=] { multiply_floats(p, at, scale, keep, bf16_parts); };
}

bool aligned(const void* address, std::uint64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

// The pointers must be what the heuristic was told they would be.
cublasStatus_t check_pointers(const Product& p, const Operands& at, bool reads_c,
                              const cublasLtMatmulAlgo_t* choice, const void* workspace,
                              std::size_t workspace_bytes) {
  if (!device_memory_holds(at.a, span_bytes(p.a)) || !device_memory_holds(at.b, span_bytes(p.b)) ||
      !device_memory_holds(at.d, span_bytes(p.d)) ||
      (reads_c && !device_memory_holds(at.c, span_bytes(p.c))) ||
      (workspace_bytes > 0 && !device_memory_holds(workspace, workspace_bytes))) {
    return CUBLAS_STATUS_INVALID_VALUE;  // the device would fault later, or overwrite something
  }
  const std::uint64_t least = p.integer() ? 4 : element_bytes(p.a.type);
  Algorithm algorithm{kAlgorithmMark, {}, 0};
  algorithm.promised = {0, 1, 1, 1, 1};
  if (choice != nullptr) std::memcpy(static_cast<void*>(&algorithm), choice, sizeof algorithm);
  const Preference& promised = algorithm.promised;
  const bool kept =
      aligned(at.a, std::max<std::uint64_t>(least, promised.alignment_a)) &&
      aligned(at.b, std::max<std::uint64_t>(least, promised.alignment_b)) &&
      (!reads_c || aligned(at.c, std::max<std::uint64_t>(least, promised.alignment_c))) &&
      aligned(at.d, std::max<std::uint64_t>(least, promised.alignment_d));
  const bool known = algorithm.mark == kAlgorithmMark;
  if (!known || !kept || workspace_bytes < algorithm.workspace_bytes) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}

// --- the functions ---

std::size_t GetVersion() { return CUBLAS_VERSION; }

cublasStatus_t Create(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new char);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t Destroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<char*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t MatmulDescCreate(cublasLtMatmulDesc_t* handle, cublasComputeType_t compute,
                                cudaDataType_t scale_type) {
  *handle = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{compute, scale_type});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t MatmulDescDestroy(cublasLtMatmulDesc_t handle) {
  delete &object<Description>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t MatmulDescSetAttribute(cublasLtMatmulDesc_t handle,
                                      cublasLtMatmulDescAttributes_t attribute, const void* value,
                                      std::size_t bytes) {
  Description& d = object<Description>(handle);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(d.transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(d.transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return set(d.pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(d.epilogue, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t MatrixLayoutCreate(cublasLtMatrixLayout_t* handle, cudaDataType_t type,
                                  std::uint64_t rows, std::uint64_t columns, std::int64_t leading) {
  *handle = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, leading});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t MatrixLayoutDestroy(cublasLtMatrixLayout_t handle) {
  delete &object<Layout>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t MatrixLayoutSetAttribute(cublasLtMatrixLayout_t handle,
                                        cublasLtMatrixLayoutAttribute_t attribute,
                                        const void* value, std::size_t bytes) {
  Layout& l = object<Layout>(handle);
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return set(l.order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return set(l.batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return set(l.batch_stride, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t MatmulPreferenceCreate(cublasLtMatmulPreference_t* handle) {
  *handle = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t MatmulPreferenceDestroy(cublasLtMatmulPreference_t handle) {
  delete &object<Preference>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t MatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                            cublasLtMatmulPreferenceAttributes_t attribute,
                                            const void* value, std::size_t bytes) {
  Preference& p = object<Preference>(handle);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(p.workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(p.alignment_a, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(p.alignment_b, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(p.alignment_c, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(p.alignment_d, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(p.reduction_schemes, value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

Product product_of(cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a,
                   cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
  return {object<Description>(description), object<Layout>(a), object<Layout>(b), object<Layout>(c),
          object<Layout>(d)};
}

// One algorithm, which uses some workspace where it is allowed to.
cublasStatus_t MatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                      cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                      cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                      cublasLtMatmulPreference_t preference, int wanted,
                                      cublasLtMatmulHeuristicResult_t* results, int* found) {
  *found = 0;
  if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  const cublasStatus_t status = check(product_of(description, a, b, c, d));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  Algorithm algorithm{kAlgorithmMark, object<Preference>(preference), 0};
  algorithm.workspace_bytes = std::min(algorithm.promised.workspace_bytes, kWorkspaceWanted);
  *results = cublasLtMatmulHeuristicResult_t{};
  std::memcpy(&results->algo, &algorithm, sizeof algorithm);
  results->workspaceSize = algorithm.workspace_bytes;
  results->state = CUBLAS_STATUS_SUCCESS;
  results->wavesCount = 1.0f;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t Matmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                      const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                      cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                      cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                      const cublasLtMatmulAlgo_t* choice, void* workspace,
                      std::size_t workspace_bytes, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_mutex());
  const Product p = product_of(description, a_layout, b_layout, c_layout, d_layout);
  if (const cublasStatus_t status = check(p); status != CUBLAS_STATUS_SUCCESS) return status;
  float beta_bits = 0;  // all bits zero is 0 of either type
  std::memcpy(&beta_bits, beta, sizeof beta_bits);
  const Operands at{a, b, c, d};
  const cublasStatus_t status =
      check_pointers(p, at, beta_bits != 0, choice, workspace, workspace_bytes);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const Work work = work_of(p, at, alpha, beta, choice);
  return enqueue(stream, work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                              : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace
}  // namespace bitnet::emulator

namespace bitnet::cuda {

// Instead of cuda/installed_cublaslt.cpp.
const CublasLtLibrary& installed_cublaslt() {
  using namespace bitnet::emulator;
  static const CublasLtLibrary library{
      true,
      {&GetVersion, &Create, &Destroy, &MatmulDescCreate, &MatmulDescDestroy,
       &MatmulDescSetAttribute, &MatrixLayoutCreate, &MatrixLayoutDestroy,
       &MatrixLayoutSetAttribute, &MatmulPreferenceCreate, &MatmulPreferenceDestroy,
       &MatmulPreferenceSetAttribute, &MatmulAlgoGetHeuristic, &Matmul},
      ""};
  static const CublasLtLibrary missing{false, {}, "cuBLASLt was not found"};
  return config().device.has_cublaslt ? library : missing;
}

}  // namespace bitnet::cuda
