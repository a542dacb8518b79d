// SPDX-License-Identifier: MIT
// Embedding, and sums over whole tensors.
#include "core/backend/element_checks.h"
#include "core/backend/loss_checks.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/embedding.h"
#include "cuda/tensor_batch.h"
#include "cuda/tensor_sums.h"

namespace bitnet::cuda {
namespace {

void sum_tensors(SumTerm term, std::span<const ConstTensorView> x, double* sums,
                 Workspace& workspace, cudaStream_t stream) {
  for_each_batch(x, [&](std::span<const ConstTensorView> batch) {
    TensorBatch<TensorToSum> tensors;
    for (const ConstTensorView& view : batch) {
      tensors.push_back({view.as<float>().data(), view.elements()});
    }
    Workspace::Frame frame(workspace);
    auto* const tiles = frame.get<double>(tensor_sum_tiles(tensors.all()));
    check(tensor_sums(term, tensors.all(), tiles, sums, stream), "summing tensors");
    sums += batch.size();
  });
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

// All launches, then one copy to the host.
void CudaBackend::sums(std::span<const ConstTensorView> x, std::span<const ConstTensorView> squared,
                       std::span<double> sums) {
  check_sums(x, squared, sums);
  if (sums.empty()) return;
  Workspace::Frame frame(workspace_);
  auto* const on_device = frame.get<double>(static_cast<std::int64_t>(sums.size()));
  sum_tensors(SumTerm::value, x, on_device, workspace_, stream_);
  sum_tensors(SumTerm::square, squared, on_device + x.size(), workspace_, stream_);
  check(cudaMemcpyAsync(sums.data(), on_device, sums.size_bytes(), cudaMemcpyDeviceToHost, stream_),
        "summing tensors");
  check(cudaStreamSynchronize(stream_), "summing tensors");
}

}  // namespace bitnet::cuda
