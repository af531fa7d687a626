#!/usr/bin/env bash
# Installs llama-cpp-python, built from PyPI's source archive for this machine,
# into build/versus, and llama-server out of the same sources. Everything stays
# in build/versus; a second run finds it there and takes seconds.
#
#   bench/versus/setup.sh
#
# NICE and JOBS in the environment set the niceness and the number of compilers.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

readonly version=0.3.36
readonly here=bench/versus
readonly home=$PWD/build/versus
readonly source=$home/source/llama_cpp_python-$version
readonly native=$home/native # CMake's folder, used by the wheel and the server
readonly python=$home/venv/bin/python
# -march=native, with OpenMP and llamafile's kernels: the fastest CPU build that
# llama.cpp has. Its web page for browsers would need the network.
readonly options=(
  -C "build-dir=$native" -C cmake.build-type=Release
  -C cmake.define.GGML_NATIVE=ON -C cmake.define.GGML_OPENMP=ON
  -C cmake.define.GGML_LLAMAFILE=ON -C cmake.define.LLAVA_BUILD=OFF)
readonly server_options=(
  -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF)

export CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)}
export PIP_DISABLE_PIP_VERSION_CHECK=1
run() { nice -n "${NICE:-0}" "$@"; }

# In functions, so that bash has read the whole file before it runs for long.
install() {
  "$python" -m pip install --quiet -r "$here/requirements.txt"
  if [[ ! -d $source ]]; then
    "$python" -m pip download --quiet --no-deps --no-build-isolation \
      --no-binary llama-cpp-python --dest "$home/source" \
      "llama-cpp-python==$version"
    # Moved when whole, so that an interrupted run leaves nothing that looks so.
    rm -rf "$home/unpacked"
    mkdir "$home/unpacked"
    tar -xzf "$home/source/llama_cpp_python-$version.tar.gz" -C "$home/unpacked"
    mv "$home/unpacked/llama_cpp_python-$version" "$source"
  fi
  local wheels=("$home/wheels/llama_cpp_python-$version"-*.whl)
  if [[ ! -f ${wheels[0]} ]]; then
    echo "building llama-cpp-python $version: 10 to 20 minutes on two cores"
    run "$python" -m pip wheel --no-deps --no-build-isolation \
      "${options[@]}" --wheel-dir "$home/wheels" "$source"
    wheels=("$home/wheels/llama_cpp_python-$version"-*.whl)
  fi
  "$python" -m pip install --quiet --no-deps --force-reinstall "${wheels[0]}"
  echo "building llama-server from the same sources"
  cmake -S "$source" -B "$native" "${server_options[@]}" >"$home/cmake.txt"
  run cmake --build "$native" --target llama-server
}

main() {
  mkdir -p "$home/source" "$home/wheels"
  [[ -x $python ]] || python3 -m venv "$home/venv"
  # The stamp makes the second run quick; it holds what was installed.
  local stamp=$home/venv/installed.txt wanted
  wanted=$(printf '%s\n' "$version" "${options[@]}" "${server_options[@]}")
  wanted+=$(<"$here/requirements.txt")
  if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
    install
    printf '%s' "$wanted" >"$stamp"
  fi
  # The client's stubs, from this checkout's protocol.
  local stubs=$home/stubs
  mkdir -p "$stubs"
  "$python" -m grpc_tools.protoc -I proto --python_out="$stubs" \
    --grpc_python_out="$stubs" proto/inference.proto
}
main
