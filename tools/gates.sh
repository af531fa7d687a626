#!/usr/bin/env bash
# The gates that need no running program: format, each header compiles alone,
# lock annotations hold, shell scripts are sound, Ubuntu has the packages.
# clang-tidy is a gate of its own (tools/clang_tidy.sh), since it takes longer
# than all of these.
# Headers include what protoc makes; build witan_proto_generated first.
#   tools/gates.sh             run all; exit status 1 if one fails
#   tools/gates.sh --sources   only list the C++ sources, one per line
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
readonly folders=(base model proto net kernels worker coordinator cli bench
  tests)

sources() { find "${folders[@]}" -name '*.h' -o -name '*.cc' | sort; }
if [[ ${1:-} == --sources ]]; then
  sources
  exit
fi

failed=0
# gate NAME COMMAND...
gate() {
  local name=$1
  shift
  if "$@"; then
    echo "gate $name: ok"
  else
    echo "gate $name: FAILED"
    failed=1
  fi
}

check_format() { sources | xargs clang-format --dry-run --Werror; }

# Clang reads each header as a source of its own, and every source that sees a
# lock; g++ already gave the other warnings.
readonly clang_flags=(-std=c++20 -fsyntax-only -x c++ -I. -Ibuild/release/generated
  '-DWITAN_SOURCE_DIR=""' '-DWITAN_BINARY_DIR=""'
  -Wno-everything -Wthread-safety -Werror)
check_with_clang() {
  xargs -P "$(nproc)" -n 1 clang++ "${clang_flags[@]}"
}
# *-inl.h are bodies that sources include inside a namespace.
check_headers() {
  sources | grep '\.h$' | grep -v -e '-inl\.h$' | check_with_clang
}
# Files that include base/mutex.h, or a file that does, and so on: a source sees
# most of its locks through its own header.
files_with_locks() {
  local files=base/mutex.h before=""
  while [[ $files != "$before" ]]; do
    before=$files
    files=$({
      echo "$before"
      sources | xargs grep -lF -e "$(sed 's/.*/#include "&"/' <<<"$before")"
    } | sort -u)
  done
  echo "$files"
}
check_locks() { files_with_locks | grep '\.cc$' | check_with_clang; }
check_shell() {
  shellcheck --severity=warning dev .ci/run tools/*.sh tests/*.sh \
    bench/versus/*.sh
}

# Every package that ./dev installs has this name on Ubuntu 24.04 too.
check_ubuntu() {
  local unknown
  unknown=$(awk '/^readonly .*_packages=/ {on = 1} on; /\)$/ {on = 0}' dev |
    sed -E 's/^readonly .*=\(//; s/\)$//' | tr -s ' ' '\n' | grep . |
    grep -vxF -f <(grep -v '^#' tests/ubuntu_24_04_packages.txt))
  [[ -z $unknown ]] || {
    echo "not in tests/ubuntu_24_04_packages.txt: $unknown"
    return 1
  }
}

gate "format" check_format
gate "headers compile alone" check_headers
gate "lock annotations" check_locks
gate "shell" check_shell
gate "package names of Ubuntu 24.04" check_ubuntu
exit "$failed"
