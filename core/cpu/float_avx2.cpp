// SPDX-License-Identifier: MIT
// The fp32 kernels for avx2: the shared source over this instruction set's lanes.
#include "core/cpu/float_kernels.h"
#include "core/cpu/lanes_avx2.h"
#include "core/cpu/lanes_integer_avx2.h"
// After the lanes:
#include "core/cpu/lanes_math.h"
// After the mathematics:
#include "core/cpu/lanes_activation.h"
// Each after what it uses:
// clang-format off
#include "core/cpu/lanes_products.h"
#include "core/cpu/lanes_attention.h"
#include "core/cpu/lanes_attention_backward.h"
// clang-format on
#include "core/cpu/lanes_dropout.h"
#include "core/cpu/lanes_half.h"
#include "core/cpu/lanes_linear.h"
#include "core/cpu/lanes_norm.h"
#include "core/cpu/lanes_rows.h"
// After the kernels:
#include "core/cpu/lanes_table.h"

namespace bitnet::cpu {

constinit const FloatKernels kFloatAvx2 = make_table("avx2");

}  // namespace bitnet::cpu
