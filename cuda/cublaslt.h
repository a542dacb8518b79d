// SPDX-License-Identifier: MIT
// cuBLASLt as a table of function pointers. The library is opened when a product first needs it: a
// program linked with it would not start on a machine without it, and opening it takes 50 ms.
#pragma once

#include <cublasLt.h>

#include <span>
#include <string>

namespace bitnet::cuda {

// The members carry the names of cublasLt.h without the prefix cublasLt.
struct CublasLtApi {
  decltype(&::cublasLtGetVersion) GetVersion = nullptr;
  decltype(&::cublasLtCreate) Create = nullptr;
  decltype(&::cublasLtDestroy) Destroy = nullptr;
  decltype(&::cublasLtMatmulDescCreate) MatmulDescCreate = nullptr;
  decltype(&::cublasLtMatmulDescDestroy) MatmulDescDestroy = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) MatrixLayoutCreate = nullptr;
  decltype(&::cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy = nullptr;
  decltype(&::cublasLtMatrixLayoutSetAttribute) MatrixLayoutSetAttribute = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic = nullptr;
  decltype(&::cublasLtMatmul) Matmul = nullptr;
};

struct CublasLtLibrary {
  bool usable = false;
  CublasLtApi api;    // complete if usable
  std::string error;  // why not usable, for the user
};

// Opens the first of the files that can be opened, and keeps it open for the rest of the process.
CublasLtLibrary open_cublaslt(std::span<const char* const> file_names);

// The library of this machine, opened by the first call. The tests that run under the CUDA emulator
// link another definition (tests/cuda_emulator).
const CublasLtLibrary& installed_cublaslt();

}  // namespace bitnet::cuda
