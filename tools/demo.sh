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
coproc serve {
  exec "$bin/witan" serve "$model" --workers 2 --tp 2 --ep 2 --port 0 \
    --metrics-port 0
}
# shellcheck disable=SC2154  # set by coproc
readonly server_pid=$serve_PID
stop() { kill "$server_pid" 2>/dev/null || true; }
trap stop EXIT

ready=""
while IFS= read -r line <&"${serve[0]}"; do
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
  printf '\n> %s\n' "$*"
  "$bin/witan" chat --server "$server" --timings --temperature 0 --message "$@"
}
ask "What is 478 + 264?" --template-arg enable_thinking=true
ask "Tell me a story about Kip the robin." --max-tokens 200

printf '\ngRPC     %s\nmetrics  %s\n' "$server" "$metrics"
if [[ $keep == yes ]]; then
  printf '\nStays up until Ctrl-C. Try:\n'
  printf '  %s/witan chat --server %s\n' "$bin" "$server"
  trap : INT TERM
  wait "$server_pid" || true
  stop
fi
stop
trap - EXIT
wait "$server_pid"
