// SPDX-License-Identifier: MIT
// A stretch of a task in which a table's products of panels are called. Not part of panel_kernels.h,
// because ISA files must share no inline code.
#pragma once

#include "core/cpu/panel_kernels.h"

namespace bitnet::cpu {

class PanelScope {
 public:
  explicit PanelScope(const PanelKernels& kernels) : kernels_(kernels) {
    if (kernels_.begin_products != nullptr) kernels_.begin_products();
  }
  ~PanelScope() {
    if (kernels_.end_products != nullptr) kernels_.end_products();
  }
  PanelScope(const PanelScope&) = delete;
  PanelScope& operator=(const PanelScope&) = delete;

 private:
  const PanelKernels& kernels_;
};

}  // namespace bitnet::cpu
