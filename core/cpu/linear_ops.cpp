// SPDX-License-Identifier: MIT
// fp32 products. Forward by our own kernel, so that a row's bits depend on that row alone;
// gradients by oneDNN, in tiles of the output that are cut by shape alone and each computed by one
// thread: the contraction is never split, and any team gives the same bits.
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>

#include "core/backend/linear_checks.h"
#include "core/cpu/cpu_backend.h"
#include "core/cpu/cpu_backend_impl.h"
#include "core/cpu/dense_backward.h"
#include "core/cpu/float_kernels.h"

namespace bitnet::cpu {
namespace {

constexpr std::int64_t kRowTile = 96;            // rows of a linear() task, at most
constexpr std::int64_t kTaskProducts = 1 << 22;  // products of a linear() task, about
constexpr std::int64_t kGradientRows = 256;      // rows of dx in a task
constexpr std::int64_t kGradientOutputs = 128;   // rows of dw in a task

// Within its scope oneDNN uses the calling thread alone, inside and outside of a parallel region
// alike. The number of threads is a property of the OpenMP task, so other threads keep theirs.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// oneDNN takes the best instruction set of the processor, but no better one than BITNET_CPU_ISA
// allows: else "avx2" would be measured against limits that its gradients do not keep to. One
// choice for the process, before oneDNN's first use. Architectures that cannot choose have one set.
void limit_instruction_set() {
  const std::string isa = chosen_cpu_isa("");
  if (isa == to_string(Isa::scalar)) dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
  if (isa == to_string(Isa::avx2)) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
}

// c [m, n] = a · b + beta c, row-major; a is [m, k], or [k, m] when `a_transposed`.
void multiply(bool a_transposed, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
              std::int64_t a_stride, const float* b, float beta, float* c) {
  static const bool limited = (limit_instruction_set(), true);
  static_cast<void>(limited);
  const OneThread scope;
  const dnnl_status_t status =
      dnnl_sgemm(a_transposed ? 'T' : 'N', 'N', m, n, k, 1.0f, a, a_stride, b, n, beta, c, n);
  BITNET_CHECK(status == dnnl_success,
               "oneDNN refused a product of [{}, {}] and [{}, {}] with status {}", m, k, k, n,
               static_cast<int>(status));
}

}  // namespace

void dense_backward(const ThreadTeam& team, const LinearShape& s, const float* x, const float* w,
                    const float* dy, float* dx, bool accumulate_dx, float* dw) {
  const std::int64_t dx_tiles = dx == nullptr ? 0 : tile_count(s.rows, kGradientRows);
  const std::int64_t dw_tiles =
      dw == nullptr || s.rows == 0 ? 0 : tile_count(s.outputs, kGradientOutputs);
  team.run(dx_tiles + dw_tiles, [&](std::int64_t task) {
    if (task < dx_tiles) {
      const std::int64_t row = task * kGradientRows;
      multiply(false, std::min(kGradientRows, s.rows - row), s.inputs, s.outputs,
               dy + row * s.outputs, s.outputs, w, accumulate_dx ? 1.0f : 0.0f,
               dx + row * s.inputs);
    } else {
      const std::int64_t output = (task - dx_tiles) * kGradientOutputs;
      multiply(true, std::min(kGradientOutputs, s.outputs - output), s.inputs, s.rows, dy + output,
               s.outputs, x, 1.0f, dw + output * s.inputs);
    }
  });
}

LinearShape check_backward(const Shape& x, const Shape& w, ConstTensorView dy, ConstTensorView dx,
                           ConstTensorView dw) {
  check_linear_backward(x, w, dy, dx, dw);
  return {x[0], w[0], x[1]};
}

void CpuBackend::linear(ConstTensorView x, ConstTensorView w, TensorView y) {
  check_linear(x.shape(), w.shape(), y);
  const std::int64_t rows = x.dim(0), inputs = x.dim(1), outputs = w.dim(0);
  const float *from = x.as<float>().data(), *weights = w.as<float>().data();
  float* to = y.as<float>().data();
  const std::int64_t row_tile = std::clamp<std::int64_t>(rows, 1, kRowTile);
  // A multiple of every kernel's register tile; few rows (decoding) get wide tasks, so that waking
  // a thread pays.
  const std::int64_t output_tile =
      tile_count(kTaskProducts, row_tile * std::max<std::int64_t>(inputs, 1) * 4) * 4;
  const std::int64_t output_tiles = tile_count(outputs, output_tile);
  issue([=, this](std::int64_t) {
    issued_team_.run(tile_count(rows, row_tile) * output_tiles, [&](std::int64_t task) {
      const std::int64_t t = task / output_tiles * row_tile, n = task % output_tiles * output_tile;
      float_->linear(from + t * inputs, weights + n * inputs, to + t * outputs + n, outputs,
                     std::min(row_tile, rows - t), std::min(output_tile, outputs - n), inputs);
    });
  });
}

void CpuBackend::linear_backward(ConstTensorView x, ConstTensorView w, ConstTensorView dy,
                                 TensorView dx, bool accumulate_dx, TensorView dw) {
  const LinearShape shape = check_backward(x.shape(), w.shape(), dy, dx, dw);
  dense_backward(team(), shape, x.as<float>().data(), w.as<float>().data(), dy.as<float>().data(),
                 dx.as<float>().data(), accumulate_dx, dw.as<float>().data());
}

}  // namespace bitnet::cpu
