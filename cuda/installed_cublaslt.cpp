// SPDX-License-Identifier: MIT
// A file of its own, so that a test program can link another one instead.
#include "cuda/cublaslt.h"

#define BITNET_TEXT(x) #x
#define BITNET_VALUE_TEXT(x) BITNET_TEXT(x)

namespace bitnet::cuda {

const CublasLtLibrary& installed_cublaslt() {
  static constexpr const char* kFileNames[] = {
      "libcublasLt.so." BITNET_VALUE_TEXT(CUBLAS_VER_MAJOR),
      "/usr/local/cuda/lib64/libcublasLt.so." BITNET_VALUE_TEXT(CUBLAS_VER_MAJOR),
  };
  static const CublasLtLibrary library = open_cublaslt(kFileNames);
  return library;
}

}  // namespace bitnet::cuda
