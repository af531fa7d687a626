# Benchmarks: one executable per bench/*.cc, not part of the default build.
file(GLOB bench_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/bench/*.cc)
foreach(source ${bench_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(bench_${name} EXCLUDE_FROM_ALL ${source})
  if(name STREQUAL "tokenize")
    target_link_libraries(bench_${name} PRIVATE witan_text)
    continue()
  endif()
  target_link_libraries(bench_${name} PRIVATE witan_kernels witan_comm
    witan_model witan_base)
  if(name STREQUAL "schedule")
    target_link_libraries(bench_${name} PRIVATE witan_testing witan_cluster
      witan_schedule GTest::gtest)
  endif()
  if(TARGET witan_worker)
    target_link_libraries(bench_${name} PRIVATE witan_worker)
  endif()
endforeach()
