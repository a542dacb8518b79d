// SPDX-License-Identifier: MIT
#define CATCH_CONFIG_MAIN
#include "tests/support/catch.h"

#ifndef BITNET_CATCH2_V2
int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
#endif
