#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Puts text to train on into data/: get_data.sh NAME; see usage() and data/README.md.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

enwik8_url=http://mattmahoney.net/dc/enwik8.zip # the SHA-1 below vouches for what arrives
enwik8_sha1=57b8363b814821dc9d47aa4d41f58733519076b2

usage() {
  cat <<'EOF'
usage: get_data.sh [--timeout SECONDS] NAME     put the text into data/NAME
       get_data.sh --list                       list the names

--timeout limits the download of enwik8 (default: 3600 seconds).
EOF
}

list() {
  local name about
  while read -r name about; do
    [[ -f data/$name ]] && about+="  [here: data/$name]"
    printf '%-8s  %s\n' "$name" "$about"
  done <<'EOF'
enwik8 100,000,000 bytes of English Wikipedia of 2006 (download, 36 MB)
gcide 39,952,321 bytes: Collaborative International Dictionary of English (Debian package dict-gcide)
wordnet 30,958,182 bytes: WordNet 3.0 (Debian package dict-wn)
foldoc 5,578,809 bytes: Free On-line Dictionary of Computing (Debian package dict-foldoc)
jargon 1,418,350 bytes: the Jargon File (Debian package dict-jargon)
EOF
}

has_sha1() { # FILE SHA1
  [[ $(sha1sum <"$1") == "$2  -" ]]
}

get_enwik8() { # TIMEOUT
  if [[ -e data/enwik8 ]]; then
    has_sha1 data/enwik8 "$enwik8_sha1" ||
      fail "data/enwik8 is not enwik8 (its SHA-1 is not $enwik8_sha1); move it away to download it"
    say "get_data.sh: data/enwik8 is already there and complete"
    return
  fi
  local tool
  for tool in curl unzip; do
    command -v "$tool" >/dev/null || fail "$tool is missing; run scripts/setup.sh"
  done
  run curl --fail --location --silent --show-error --connect-timeout 10 --max-time "$1" \
    --output "$work/enwik8.zip" "$enwik8_url" || fail "could not download $enwik8_url"
  unzip -p "$work/enwik8.zip" enwik8 >"$work/enwik8" ||
    fail "what $enwik8_url sent is not the zip file expected"
  has_sha1 "$work/enwik8" "$enwik8_sha1" ||
    fail "the download is damaged: its SHA-1 is not $enwik8_sha1"
  keep enwik8
}

get_dictionary() { # NAME PACKAGE FILE: /usr/share/dictd/FILE of a Debian package
  local name=$1 package=$2 file=usr/share/dictd/$3
  if [[ -e data/$name ]]; then
    say "get_data.sh: data/$name is already there"
    return
  fi
  local source=/$file
  if [[ ! -f $source ]]; then
    # Unpacked, not installed: that takes no root, and no dictionary server comes with it.
    download_package "$package"
    run dpkg-deb --extract "$work/$package"_*.deb "$work"
    source=$work/$file
  fi
  gzip --decompress --stdout <"$source" >"$work/$name" || fail "$source is damaged"
  keep "$name"
}

download_package() { # PACKAGE
  command -v apt-get >/dev/null ||
    fail "$1 is a Debian package, and there is no apt-get here; fetch it from packages.debian.org"
  local options=()
  ((EUID == 0)) && options=(-o APT::Sandbox::User=root) # else apt warns about the folder
  (
    cd "$work"
    run apt-get "${options[@]}" --quiet download "$1"
  ) && return
  say "get_data.sh: the package lists are missing or old"
  root_apt_get update --quiet
  (
    cd "$work"
    run apt-get "${options[@]}" --quiet download "$1"
  ) || fail "apt-get could not download $1; is there a network?"
}

keep() { # NAME: gives the finished file its place, at once
  chmod 644 "$work/$1"
  mv --no-target-directory "$work/$1" "data/$1"
  say "get_data.sh: data/$1 has $(stat --format=%s "data/$1") bytes"
}

timeout=3600
name=
while (($# > 0)); do
  case $1 in
    --list) list && exit ;;
    --help | -h) usage && exit ;;
    --timeout)
      [[ ${2-} =~ ^[1-9][0-9]*$ ]] || fail "--timeout takes a number of seconds"
      timeout=$2
      shift
      ;;
    -*) fail "unknown option '$1'; see get_data.sh --help" ;;
    *)
      [[ -z $name ]] || fail "one name at a time, not '$name' and '$1'"
      name=$1
      ;;
  esac
  shift
done

work=$(mktemp --directory data/.get_data.XXXXXX) # on the same disk as data/, so that mv is a rename
trap 'rm -rf "$work"' EXIT

case $name in
  enwik8) get_enwik8 "$timeout" ;;
  gcide) get_dictionary gcide dict-gcide gcide.dict.dz ;;
  wordnet) get_dictionary wordnet dict-wn wn.dict.dz ;;
  foldoc) get_dictionary foldoc dict-foldoc foldoc.dict.dz ;;
  jargon) get_dictionary jargon dict-jargon jargon.dict.dz ;;
  "")
    usage >&2
    exit 2
    ;;
  *) fail "unknown text '$name'; get_data.sh --list shows the names" ;;
esac
