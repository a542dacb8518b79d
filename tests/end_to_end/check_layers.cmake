# SPDX-License-Identifier: MIT
# The folders include each other as docs/architecture.md says, and the script that sees to it sees what it should.
add_test(NAME check_layers
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/scripts/check_layers.py ${PROJECT_SOURCE_DIR})
add_test(NAME check_layers_test
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/check_layers_test.py)
set_tests_properties(check_layers check_layers_test PROPERTIES LABELS unit)
