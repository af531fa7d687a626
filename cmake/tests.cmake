# One executable per tests/**/*_test.cc, linked with everything it may test.
# Label by folder: unit, parity, exactness, e2e, fuzz, sim. Tests in folders that need
# gRPC are built only with WITAN_RPC.

set(rpc_test_folders proto net api cli e2e cluster_rpc fuzz)

file(GLOB_RECURSE test_sources CONFIGURE_DEPENDS
  RELATIVE ${CMAKE_SOURCE_DIR}/tests ${CMAKE_SOURCE_DIR}/tests/*_test.cc)
file(GLOB testing_sources CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/tests/testing/*.cc)

set(test_libraries witan_text witan_schedule witan_comm witan_kernels
  witan_model witan_base)
foreach(library witan_cluster witan_worker)
  if(TARGET ${library})
    list(PREPEND test_libraries ${library})
  endif()
endforeach()

if(testing_sources)
  add_library(witan_testing STATIC ${testing_sources})
  target_link_libraries(witan_testing PUBLIC ${test_libraries} GTest::gtest)
  list(PREPEND test_libraries witan_testing)
endif()

include(cmake/sim.cmake)

# What the tests of a folder link.
function(link_tested target folder)
  if(folder STREQUAL "tidy")
    # The house rules read sources and must not wait for them to compile.
    target_link_libraries(${target} PRIVATE witan_options fmt::fmt)
  else()
    list(FIND rpc_test_folders ${folder} needs_rpc)
    if(NOT needs_rpc EQUAL -1)
      target_link_libraries(${target} PRIVATE witan_api witan_bench witan_cli
        witan_proto witan_net witan_worker_rpc)
    endif()
    target_link_libraries(${target} PRIVATE ${test_libraries})
  endif()
  target_link_libraries(${target} PRIVATE GTest::gmock)
  target_compile_definitions(${target} PRIVATE
    WITAN_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    WITAN_BINARY_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
endfunction()

foreach(source ${test_sources})
  string(REGEX MATCH "^[^/]+" folder ${source})
  string(REGEX REPLACE "\\.cc$" "" target ${source})
  string(REPLACE "/" "_" target ${target})
  list(FIND rpc_test_folders ${folder} needs_rpc)
  if(NOT needs_rpc EQUAL -1 AND NOT WITAN_RPC)
    continue()
  endif()
  # Other sources of a test folder are compiled once, for each of its tests.
  if(NOT folder STREQUAL "sim" AND NOT TARGET witan_${folder}_test_sources)
    file(GLOB support_sources CONFIGURE_DEPENDS
      ${CMAKE_SOURCE_DIR}/tests/${folder}/*.cc)
    list(FILTER support_sources EXCLUDE REGEX "_(test|main)\\.cc$")
    if(support_sources)
      add_library(witan_${folder}_test_sources OBJECT ${support_sources})
      link_tested(witan_${folder}_test_sources ${folder})
    endif()
  endif()
  add_executable(${target} ${CMAKE_SOURCE_DIR}/tests/${source})
  set_target_properties(${target} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(folder STREQUAL "sim")
    target_link_libraries(${target} PRIVATE witan_sim)
  elseif(TARGET witan_${folder}_test_sources)
    target_link_libraries(${target} PRIVATE witan_${folder}_test_sources)
  endif()
  link_tested(${target} ${folder})
  target_link_libraries(${target} PRIVATE GTest::gtest_main)
  if(folder MATCHES "^(parity|exactness|e2e|fuzz|sim)$")
    set(label ${folder})
  else()
    set(label unit)
  endif()
  add_test(NAME ${target} COMMAND ${target})
  set_tests_properties(${target} PROPERTIES LABELS ${label} TIMEOUT 600)
  if(label STREQUAL "parity")
    # One long program: it starts first, so that others run beside it.
    set_tests_properties(${target} PROPERTIES COST 1000)
  endif()
endforeach()

# Not a test by itself: tests/text/compare_tokenizers.py runs it.
add_executable(text_encode_texts EXCLUDE_FROM_ALL
  ${CMAKE_SOURCE_DIR}/tests/text/encode_texts_main.cc)
set_target_properties(text_encode_texts PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(text_encode_texts PRIVATE witan_text)
