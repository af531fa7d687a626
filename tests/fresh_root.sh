#!/usr/bin/env bash
# Proves the README on a machine that has nothing: makes a minimal Debian 12
# root with debootstrap, clones this checkout's HEAD into it, and runs the two
# commands there, the demo twice; the second must find nothing to install and
# nothing to build. Needs root and about 5 GB below build/; takes as long as a
# first build and the tests.
#   tests/fresh_root.sh [--no-tests]
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly root=$PWD/build/fresh-root
readonly log=$PWD/build/fresh-root.log
readonly output=$PWD/build/fresh-root.output
readonly mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

((EUID == 0)) || {
  echo "fresh_root: needs root, for debootstrap and chroot" >&2
  exit 2
}
command -v debootstrap >/dev/null ||
  apt-get install -y --no-install-recommends debootstrap

rm -rf -- "$root"
debootstrap --variant=minbase bookworm "$root" "$mirror"
cp /etc/resolv.conf "$root/etc/resolv.conf"
git clone -q . "$root/root/witan"

# The mounts live in a namespace of their own and vanish with it.
in_root() {
  unshare --mount --propagation private bash -euc '
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    exec chroot "$1" env -i HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin \
      bash -c "cd /root/witan && $2" </dev/null' bash "$root" "$1"
}

fail() {
  tail -n 40 "$log"
  echo "fresh_root: $*; see $log" >&2
  exit 1
}
# run COMMAND: leaves its output in $log, after that of those before it, and
# alone in $output.
run() {
  local command=$1 begin=$SECONDS
  echo "== $command" | tee -a "$log"
  in_root "$command" >"$output" 2>&1 || {
    cat "$output" >>"$log"
    fail "$command failed"
  }
  cat "$output" >>"$log"
  echo "$command: exit 0 after $((SECONDS - begin)) s" | tee -a "$log"
}

: >"$log"
in_root 'if command -v g++ cmake git python3; then exit 1; fi'
run "./dev demo"
grep -q '^== installing' "$output" || fail "the first demo installed nothing"
run "./dev demo"
! grep '^== installing' "$output" || fail "the second demo installed packages"
grep -q '^ninja: no work to do' "$output" || fail "the second demo built again"
if [[ ${1:-} != --no-tests ]]; then
  run "./dev test"
  grep 'tests passed, ' "$output"
fi
