# The NPU backend, src/backends/npu: libedgellm_npu, opened where a model is loaded with backend "npu".
# It opens onnxruntime itself and needs nothing of it to be built.

# Two binaries share objects of these headers: both know them by their hash.
set(abi "")
foreach(header backends/step_graphs.h base/errors.inc base/status.h)
  set(path ${PROJECT_SOURCE_DIR}/src/${header})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  file(SHA256 ${path} hash)
  string(APPEND abi ${hash})
endforeach()
string(SHA256 EDGE_GRAPHS_ABI "${abi}")

# edge_npu_library(): edgellm_npu, beside what opens it.
function(edge_npu_library)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/npu/*.cc)
  add_library(edgellm_npu MODULE ${sources})
  target_include_directories(edgellm_npu PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(edgellm_npu PRIVATE EDGE_GRAPHS_ABI="${EDGE_GRAPHS_ABI}")
  target_link_libraries(edgellm_npu PRIVATE edge_options edge_baseline edge_cold edge_format edge_base)
  if(WIN32)
    set_target_properties(edgellm_npu PROPERTIES PREFIX "")
  elseif(APPLE)
    set_target_properties(edgellm_npu PROPERTIES SUFFIX .dylib)
  elseif(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT EDGE_SANITIZE)
    target_link_options(edgellm_npu PRIVATE -s -Wl,--gc-sections -Wl,--exclude-libs,ALL)
  endif()
endfunction()
