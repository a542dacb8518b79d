// SPDX-License-Identifier: MIT
#include "cuda/cublaslt.h"

#include <dlfcn.h>

namespace bitnet::cuda {
namespace {

// False, with the library's error, if the function is not there.
template <typename Function>
bool find(void* file, const char* name, Function& function, CublasLtLibrary& library) {
  function = reinterpret_cast<Function>(dlsym(file, name));
  if (function != nullptr) return true;
  library.error = std::string("cuBLASLt lacks ") + name + "; install CUDA " +
                  std::to_string(CUBLAS_VER_MAJOR) + "'s";
  return false;
}

bool find_all(void* file, CublasLtLibrary& library) {
  CublasLtApi& api = library.api;
  const auto get = [&](const char* name, auto& function) {
    return find(file, name, function, library);
  };
  return get("cublasLtGetVersion", api.GetVersion) && get("cublasLtCreate", api.Create) &&
         get("cublasLtDestroy", api.Destroy) &&
         get("cublasLtMatmulDescCreate", api.MatmulDescCreate) &&
         get("cublasLtMatmulDescDestroy", api.MatmulDescDestroy) &&
         get("cublasLtMatmulDescSetAttribute", api.MatmulDescSetAttribute) &&
         get("cublasLtMatrixLayoutCreate", api.MatrixLayoutCreate) &&
         get("cublasLtMatrixLayoutDestroy", api.MatrixLayoutDestroy) &&
         get("cublasLtMatrixLayoutSetAttribute", api.MatrixLayoutSetAttribute) &&
         get("cublasLtMatmulPreferenceCreate", api.MatmulPreferenceCreate) &&
         get("cublasLtMatmulPreferenceDestroy", api.MatmulPreferenceDestroy) &&
         get("cublasLtMatmulPreferenceSetAttribute", api.MatmulPreferenceSetAttribute) &&
         get("cublasLtMatmulAlgoGetHeuristic", api.MatmulAlgoGetHeuristic) &&
         get("cublasLtMatmul", api.Matmul);
}

}  // namespace

CublasLtLibrary open_cublaslt(std::span<const char* const> file_names) {
  CublasLtLibrary library;
  std::string why_not = "no file name was given";
  for (const char* name : file_names) {
    void* file = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (file == nullptr) {
      // The first name is the usual one: what keeps that from opening is what the user can mend.
      if (name == file_names.front()) why_not = dlerror();
      continue;
    }
    if (!find_all(file, library)) return library;
    const std::size_t version = library.api.GetVersion();  // 130000 is 13.0.0
    if (version / 10000 != CUBLAS_VER_MAJOR) {
      library.error = std::string(name) + " is cuBLASLt " + std::to_string(version / 10000) +
                      ", expected " + std::to_string(CUBLAS_VER_MAJOR);
      return library;
    }
    library.usable = true;
    return library;
  }
  library.error = "cuBLASLt was not found (" + why_not + "); install CUDA " +
                  std::to_string(CUBLAS_VER_MAJOR) + "'s or set LD_LIBRARY_PATH";
  return library;
}

}  // namespace bitnet::cuda
