# The simulation (tests/sim) once more for every planted bug: the one source
# that has it, compiled from a copy, is linked before the library, so that what
# ships knows nothing of it. Each test passes if the simulation finds the bug.

file(GLOB sim_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/sim/*.cc)
list(FILTER sim_sources EXCLUDE REGEX "_(test|main)\\.cc$")
add_library(witan_sim STATIC ${sim_sources})
target_link_libraries(witan_sim PUBLIC witan_testing GTest::gtest)

# Sanitizers look at memory; what a bug does to it is of no interest.
if(NOT WITAN_SANITIZE)
  file(GLOB bugs CONFIGURE_DEPENDS
    ${CMAKE_SOURCE_DIR}/tests/sim/planted_bugs/*.bug)
  list(LENGTH bugs num_bugs)
  if(num_bugs LESS 10)
    message(FATAL_ERROR "tests/sim/planted_bugs has ${num_bugs} bugs; the "
      "simulation has to be shown at least 10")
  endif()
  add_library(witan_sim_bug_main OBJECT
    ${CMAKE_SOURCE_DIR}/tests/sim/planted_bug_main.cc)
  target_link_libraries(witan_sim_bug_main PRIVATE witan_sim)
  foreach(bug ${bugs})
    get_filename_component(name ${bug} NAME_WE)
    file(STRINGS ${bug} file_line REGEX "^file ")
    string(REGEX REPLACE "^file +" "" path "${file_line}")
    set(mutated ${CMAKE_BINARY_DIR}/planted_bugs/${name}.cc)
    add_custom_command(OUTPUT ${mutated}
      COMMAND ${CMAKE_COMMAND} -DBUG=${bug} -DSOURCE=${CMAKE_SOURCE_DIR}/${path}
        -DOUTPUT=${mutated} -P ${CMAKE_SOURCE_DIR}/cmake/plant_bug.cmake
      DEPENDS ${bug} ${CMAKE_SOURCE_DIR}/${path}
        ${CMAKE_SOURCE_DIR}/cmake/plant_bug.cmake
      VERBATIM)
    # What a bug leaves unused is no mistake of ours, and speed of no interest.
    set_source_files_properties(${mutated} PROPERTIES COMPILE_OPTIONS "-w;-O1")
    add_executable(sim_bug_${name} ${mutated})
    set_target_properties(sim_bug_${name} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_link_libraries(sim_bug_${name} PRIVATE witan_sim_bug_main witan_sim)
    add_test(NAME sim_bug_${name} COMMAND sim_bug_${name})
    set_tests_properties(sim_bug_${name} PROPERTIES LABELS sim TIMEOUT 120)
  endforeach()
endif()
