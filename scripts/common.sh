# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the scripts share. Sourced, not run; leaves the shell in the repository's root.
set -euo pipefail
CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$@" >&2; }

fail() {
  say "${0##*/}: $*"
  exit 1
}

# Prints the command, then runs it.
run() {
  printf '+ %s\n' "$(printf '%q ' "$@")" >&2
  "$@"
}

# apt-get as root, or through sudo.
root_apt_get() {
  local command=(env DEBIAN_FRONTEND=noninteractive apt-get "$@")
  if ((EUID == 0)); then
    run "${command[@]}"
  elif command -v sudo >/dev/null; then
    run sudo "${command[@]}"
  else
    fail "'apt-get $*' needs root: run this as root, or install sudo"
  fi
}
