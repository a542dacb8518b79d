// SPDX-License-Identifier: MIT
// Which program this is. The values come from CMake (version.cpp.in).
#pragma once

namespace bitnet {

extern const char* const kVersion;  // "0.1.0"
extern const char* const kBuild;    // compiler, build type and kernels
extern const char* const kGitId;    // "git describe" at configure time, or "unknown"

}  // namespace bitnet
