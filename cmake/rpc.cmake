# Everything that speaks gRPC or protobuf: the wire, the network edges and the
# binaries.

file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.proto)
if(protos)
  # Generated code is compiled without our warnings.
  add_library(witan_proto_generated STATIC ${protos})
  target_link_libraries(witan_proto_generated PUBLIC
    protobuf::libprotobuf gRPC::grpc++)
  target_include_directories(witan_proto_generated PUBLIC
    ${CMAKE_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/generated)
  protobuf_generate(TARGET witan_proto_generated LANGUAGE cpp
    IMPORT_DIRS ${CMAKE_SOURCE_DIR}
    PROTOC_OUT_DIR ${CMAKE_BINARY_DIR}/generated)
  if(NOT WITAN_FUZZ)  # what is fuzzed ends where gRPC begins
    protobuf_generate(TARGET witan_proto_generated LANGUAGE grpc
      GENERATE_EXTENSIONS .grpc.pb.h .grpc.pb.cc
      PLUGIN "protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>"
      IMPORT_DIRS ${CMAKE_SOURCE_DIR}
      PROTOC_OUT_DIR ${CMAKE_BINARY_DIR}/generated)
  endif()
  witan_library(witan_proto proto witan_proto_generated witan_model witan_base)
endif()

witan_library(witan_net net
  witan_base witan_build_id gRPC::grpc++ gRPC::grpc++_reflection
  prometheus-cpp::pull)
witan_library(witan_cli cli
  witan_net witan_proto witan_text witan_model witan_base)
witan_library(witan_bench cli/bench
  witan_cli witan_net witan_proto witan_base witan_build_id)

# The gRPC files of folders whose other files are free of it.
file(GLOB rpc_cluster_sources CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/coordinator/cluster/grpc_*.cc)
add_library(witan_cluster_rpc STATIC ${rpc_cluster_sources})
target_link_libraries(witan_cluster_rpc PUBLIC
  witan_cluster witan_proto witan_net)
witan_library(witan_api coordinator/api
  witan_cluster_rpc witan_net witan_proto witan_cluster witan_text witan_model
  witan_base gRPC::grpc++)
file(GLOB rpc_worker_sources CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/worker/*_service.cc
  ${CMAKE_SOURCE_DIR}/worker/*_metrics.cc)
if(rpc_worker_sources)
  add_library(witan_worker_rpc STATIC ${rpc_worker_sources})
  target_link_libraries(witan_worker_rpc PUBLIC
    witan_worker witan_proto witan_net)
endif()

function(witan_binary name main)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${main})
    add_executable(${name} ${main})
    target_link_libraries(${name} PRIVATE ${ARGN})
  endif()
endfunction()
witan_binary(witan-coordinator coordinator/coordinator_main.cc witan_api)
witan_binary(witan-worker worker/worker_main.cc witan_worker_rpc)
witan_binary(witan cli/witan_main.cc witan_bench witan_cli)
