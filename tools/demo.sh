#!/usr/bin/env bash
# The demonstration of ./dev demo, on binaries that are there: serves the
# bundled model on two workers and asks it something.
#   tools/demo.sh BINARY_FOLDER [--keep]
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly model=examples/witling/witling-instruct
readonly bin=$1
keep=no
case ${2:-} in
  "") ;;
  --keep) keep=yes ;;
  *)
    echo "demo: unknown argument $2; only --keep is known" >&2
    exit 2
    ;;
esac

# Ports are taken as they are free, so that nothing that runs is in the way.
# Its stdout is a FIFO, whose name can go once both ends are open.
mkdir -p build
scratch=$(mktemp -d build/demo.XXXXXX)
readonly scratch
trap 'rm -r "$scratch"' EXIT
mkfifo "$scratch/out"
"$bin/witan" serve "$model" --workers 2 --tp 2 --ep 2 --port 0 \
  --metrics-port 0 >"$scratch/out" &
readonly server_pid=$!
exec 3<"$scratch/out"
rm -r "$scratch"
stop() { kill "$server_pid" 2>/dev/null || true; }
trap stop EXIT

ready=""
while IFS= read -r line <&3; do
  [[ $line == ready* ]] || continue
  ready=$line
  break
done
if [[ -z $ready ]]; then
  trap - EXIT
  wait "$server_pid" && code=1 || code=$?
  echo "demo: the cluster did not start (exit code $code)" >&2
  exit "$code"
fi
value_of() { sed -E "s|.* $1=([^ ]*).*|\\1|" <<<"$ready"; }
server=$(value_of grpc)
metrics=$(value_of metrics)
echo "$ready"

ask() {
  printf '\n$ witan chat --temperature 0 --message "%s"%s\n' "$1" "${2:+ ${*:2}}"
  "$bin/witan" chat --server "$server" --timings --temperature 0 --message "$@"
}
ask "What is 478 + 264?" --template-arg enable_thinking=true
ask "Tell me a story about Kip the robin." --max-tokens 200

printf '\ngRPC     %s\nmetrics  %s\n' "$server" "$metrics"
code=0
if [[ $keep == yes ]]; then
  printf '\nStays up until Ctrl-C. In another terminal:\n'
  printf '  %q chat --server %s\n' "$(realpath "$bin")/witan" "$server"
  printf '  %q status --server %s\n' "$(realpath "$bin")/witan" "$server"
  # A signal ends the wait with its own status; the cluster's follows.
  trap 'keep=no' INT TERM
  wait "$server_pid" || code=$?
  [[ $keep == no ]] || exit "$code"
fi
stop
trap - EXIT INT TERM
wait "$server_pid"
