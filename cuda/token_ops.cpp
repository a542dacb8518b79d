// SPDX-License-Identifier: MIT
// Embedding, and sums over whole tensors.
#include <algorithm>

#include "core/backend/element_checks.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/embedding.h"
#include "cuda/tensor_sums.h"

namespace bitnet::cuda {
namespace {

// All launches, then one copy to the host.
void sum_tensors(SumTerm term, std::span<const ConstTensorView> x, std::span<double> sums,
                 Workspace& workspace, cudaStream_t stream) {
  BITNET_CHECK(sums.size() == x.size(), "{} sums of {} tensors", sums.size(), x.size());
  if (x.empty()) return;
  Workspace::Frame frame(workspace);
  auto* device_sums = frame.get<double>(static_cast<std::int64_t>(x.size()));
  for (std::size_t first = 0; first < x.size(); first += kMostSummedTensors) {
    const auto batch = x.subspan(first, std::min(x.size() - first, kMostSummedTensors));
    TensorSums op{};
    op.sums = device_sums + first;
    for (const ConstTensorView& view : batch) {
      op.tensors[op.count++] = {view.as<float>().data(), view.elements()};
    }
    Workspace::Frame of_batch(workspace);
    op.tile_sums = of_batch.get<double>(tensor_sum_tiles(op));
    check(tensor_sums(term, op, stream), "summing tensors");
  }
  check(
      cudaMemcpyAsync(sums.data(), device_sums, sums.size_bytes(), cudaMemcpyDeviceToHost, stream),
      "summing tensors");
  check(cudaStreamSynchronize(stream), "summing tensors");
}

}  // namespace

void CudaBackend::embedding(ConstTensorView tokens, ConstTensorView table, TensorView y) {
  check_embedding(tokens, table, y);  // whether a token lies in [0, V) only the device sees
  const auto launch = [&]<typename Table>(const Table* rows_of_table) {
    const Embedding<Table> op{tokens.as<std::int32_t>().data(),
                              rows_of_table,
                              y.as<float>().data(),
                              tokens.elements(),
                              table.dim(0),
                              table.dim(1)};
    if (y.elements() > 0) check(cuda::embedding(op, stream_), "embedding");
  };
  if (table.dtype() == DType::bf16) {
    launch(data<__nv_bfloat16>(table));
  } else {
    launch(table.as<float>().data());
  }
}

void CudaBackend::embedding_backward(ConstTensorView tokens, ConstTensorView dy,
                                     TensorView dtable) {
  check_embedding(tokens, dtable, dy);
  const EmbeddingBackward op{.tokens = tokens.as<std::int32_t>().data(),
                             .dy = dy.as<float>().data(),
                             .dtable = dtable.as<float>().data(),
                             .rows = tokens.elements(),
                             .vocabulary = dtable.dim(0),
                             .width = dtable.dim(1)};
  if (dy.elements() > 0) check(cuda::embedding_backward(op, stream_), "embedding_backward");
}

double CudaBackend::sum(ConstTensorView x) {
  double sum = 0;
  sum_tensors(SumTerm::value, std::span(&x, 1), std::span(&sum, 1), workspace_, stream_);
  return sum;
}

void CudaBackend::sums_of_squares(std::span<const ConstTensorView> x, std::span<double> sums) {
  sum_tensors(SumTerm::square, x, sums, workspace_, stream_);
}

}  // namespace bitnet::cuda
