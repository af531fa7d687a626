#!/usr/bin/env bash
# Runs clang-tidy over every source of the compile database of build/release;
# .clang-tidy says what it looks for. Headers include what protoc makes; build
# witan_proto_generated first. A source that was clean is not looked at again
# until it, a header of ours that it reaches or the list changes: build/tidy
# remembers that.
#   tools/clang_tidy.sh [PATH...]    all sources, or those named
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
export DATABASE=build/release CACHE=build/tidy
mkdir -p "$CACHE"

# Each named source on a line, followed by the files of ours that it includes,
# directly or not.
with_headers() {
  local files
  mapfile -t files < <(tools/gates.sh --sources)
  awk -v generated="$DATABASE/generated/" -v wanted="$*" '
    FNR == 1 { known[FILENAME] = 1 }
    /^ *# *include "/ {
      split($0, parts, "\"")
      included[FILENAME] = included[FILENAME] " " parts[2]
    }
    END {
      num_sources = split(wanted, sources, " ")
      for (s = 1; s <= num_sources; ++s) {
        split("", seen)
        seen[sources[s]] = 1
        list[1] = sources[s]
        size = 1
        line = sources[s]
        for (i = 1; i <= size; ++i) {
          num = split(included[list[i]], next_files, " ")
          for (n = 1; n <= num; ++n) {
            file = next_files[n]
            if (!(file in known)) file = generated file
            if (!(file in known) || file in seen) continue
            seen[file] = 1
            list[++size] = file
            line = line " " file
          }
        }
        print line
      }
    }' "${files[@]}" "$DATABASE"/generated/proto/*.h
}

# check SOURCE HEADER...
check() {
  local key
  key=$({
    clang-tidy --version
    cat .clang-tidy tools/clang_tidy.sh "$@"
  } | sha256sum)
  key=$CACHE/${key%% *}
  [[ ! -e $key ]] || return 0
  if clang-tidy -quiet -p "$DATABASE" --extra-arg=-Wno-everything \
    --extra-arg=-Wthread-safety "$1" >"$key.log" 2>&1; then
    mv "$key.log" "$key"
  else
    cat "$key.log"
    rm "$key.log"
    return 1
  fi
}
export -f check

(($#)) || mapfile -t sources < <(
  sed -nE "s|^ *\"file\": \"$PWD/(.*)\",?$|\\1|p" \
    "$DATABASE/compile_commands.json" | grep -v '^build/' | sort -u)
# shellcheck disable=SC2016
with_headers "${@:-${sources[@]}}" |
  xargs -P "$(nproc)" -d '\n' -I{} bash -c 'check $1' check {}
