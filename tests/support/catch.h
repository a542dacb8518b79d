// SPDX-License-Identifier: MIT
// The one place that knows which major version of Catch2 is installed.
#pragma once

#ifdef BITNET_CATCH2_V2
#include <catch2/catch.hpp>
#else
#include <catch2/catch_all.hpp>
#endif
