#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs the Debian packages that are missing: setup.sh for building, setup.sh --tests for the tests too.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  g++ cmake ninja-build
  libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev zlib1g-dev libpcre2-dev libsentencepiece-dev
  libdnnl-dev ocl-icd-opencl-dev  # oneDNN's CMake files look for OpenCL, which bitnet does not use
  ca-certificates curl unzip      # get_data.sh
)
test_packages=(catch2 libbenchmark-dev python3 g++-aarch64-linux-gnu qemu-user)

case "${1-}" in
  "") ;;
  --tests) packages+=("${test_packages[@]}") ;;
  *) fail "unknown argument '$1'; usage: setup.sh [--tests]" ;;
esac

for tool in dpkg-query apt-get; do
  command -v "$tool" >/dev/null ||
    fail "there is no $tool here: this script knows Debian only; install yourself: ${packages[*]}"
done

missing=()
for package in "${packages[@]}"; do
  # shellcheck disable=SC2016 # dpkg-query, not the shell, fills in the field
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done

if ((${#missing[@]} == 0)); then
  say "setup.sh: nothing to do, all ${#packages[@]} packages are installed"
  exit 0
fi

say "setup.sh: installing ${missing[*]}"
install=(install --yes --quiet --no-install-recommends "${missing[@]}")
if ! apt-get --simulate "${install[@]}" &>/dev/null; then
  say "setup.sh: the package lists are missing or old"
  root_apt_get update --quiet
fi
if ! root_apt_get "${install[@]}"; then
  say "setup.sh: trying once more with fresh package lists"
  root_apt_get update --quiet
  root_apt_get "${install[@]}"
fi
say "setup.sh: done"
