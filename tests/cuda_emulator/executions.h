// SPDX-License-Identifier: MIT
// The ways in which a kernel test is executed. A test program for a real device links another
// definition, which runs the body once.
#pragma once

#include <functional>
#include <string>

namespace bitnet::test {

// Calls body once for each schedule x cp.async mode x poison, with the stream modes and random
// seeds in turn; `execution` names the combination. Starts and ends with a new device. body stops
// the loop by returning false. With BITNET_EMULATOR_EXECUTIONS=few in the environment only four of
// the 24: each schedule, mode and poison at least once. Under ThreadSanitizer the first two of them.
void for_each_execution(const std::function<bool(const std::string& execution)>& body);

// The same for a body that checks by itself.
void in_each_execution(const std::function<void()>& body);

}  // namespace bitnet::test
