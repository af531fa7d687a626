# witan_build_id: one generated file that names this build. A library of its
# own, so that only what links it (the binaries) relinks when a source changes.

file(GLOB_RECURSE build_id_sources CONFIGURE_DEPENDS
  RELATIVE ${CMAKE_SOURCE_DIR}
  base/*.h base/*.cc cli/*.h cli/*.cc coordinator/*.h coordinator/*.cc
  kernels/*.h kernels/*.cc model/*.h model/*.cc net/*.h net/*.cc
  proto/*.proto proto/*.h proto/*.cc worker/*.h worker/*.cc
  CMakeLists.txt cmake/*.cmake)
string(REPLACE ";" "\n" build_id_lines "${build_id_sources}")
set(build_id_list ${CMAKE_BINARY_DIR}/build_id_sources.txt)
file(CONFIGURE OUTPUT ${build_id_list} CONTENT "${build_id_lines}\n" @ONLY)
set(build_id_file ${CMAKE_BINARY_DIR}/build_id.cc)
list(TRANSFORM build_id_sources PREPEND ${CMAKE_SOURCE_DIR}/
  OUTPUT_VARIABLE build_id_paths)
add_custom_command(OUTPUT ${build_id_file}
  COMMAND ${CMAKE_COMMAND} -DROOT=${CMAKE_SOURCE_DIR} -DOUTPUT=${build_id_file}
    -DSOURCES_FILE=${build_id_list} -DVERSION=${PROJECT_VERSION}
    "-DTOOLCHAIN=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE} ${CMAKE_CXX_FLAGS} ${WITAN_SANITIZE}"
    -P ${CMAKE_SOURCE_DIR}/cmake/write_build_id.cmake
  DEPENDS ${build_id_list} ${build_id_paths}
  COMMENT "Hashing the sources into a build id" VERBATIM)
add_library(witan_build_id STATIC ${build_id_file})
target_link_libraries(witan_build_id PUBLIC witan_options)
