# libFuzzer targets, in a build of their own (./dev fuzz):
#   cmake -DWITAN_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++ ...
# Only what they touch is built, instrumented; protobuf and Abseil are Debian's.

set(fuzz_sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
target_compile_options(witan_options INTERFACE
  -fsanitize=fuzzer-no-link ${fuzz_sanitizers})
target_link_options(witan_options INTERFACE ${fuzz_sanitizers})

file(GLOB fuzz_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/*.cc)
list(FILTER fuzz_sources EXCLUDE REGEX "_(test|main)\\.cc$")
add_library(witan_fuzz_targets STATIC ${fuzz_sources}
  ${CMAKE_SOURCE_DIR}/tests/testing/gguf_file.cc
  ${CMAKE_SOURCE_DIR}/tests/testing/tiny_model.cc
  ${CMAKE_SOURCE_DIR}/worker/slots.cc)
target_link_libraries(witan_fuzz_targets PUBLIC
  witan_proto witan_text witan_model witan_base)
target_compile_definitions(witan_fuzz_targets PRIVATE
  WITAN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")

add_executable(write_fuzz_seeds EXCLUDE_FROM_ALL
  ${CMAKE_SOURCE_DIR}/tests/fuzz/write_seeds_main.cc)
target_link_libraries(write_fuzz_seeds PRIVATE witan_fuzz_targets)

# One per row of Targets() in tests/fuzz/target.cc.
file(STRINGS ${CMAKE_SOURCE_DIR}/tests/fuzz/target.cc rows
  REGEX "^ +{\"[a-z_]+\", Run")
foreach(row ${rows})
  string(REGEX REPLACE "^ +{\"([a-z_]+)\".*" "\\1" name "${row}")
  add_executable(fuzz_${name} EXCLUDE_FROM_ALL
    ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzzer_main.cc)
  target_compile_definitions(fuzz_${name} PRIVATE WITAN_FUZZ_TARGET="${name}")
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_${name} PRIVATE witan_fuzz_targets)
endforeach()
