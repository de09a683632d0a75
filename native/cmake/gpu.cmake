# What the backends of devices share: src/backends/gpu, and how their kernels are compiled for the CPU.

# Two binaries share objects of these headers: both know them by their hash.
set(abi "")
foreach(header backends/backend.h backends/kv_layout.h backends/op_kinds.h backends/top_tokens.h base/errors.inc base/os.h
               base/status.h kernels/kv_format.h tensor/formats.inc tensor/tensor.h)
  set(path ${PROJECT_SOURCE_DIR}/src/${header})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  file(SHA256 ${path} hash)
  string(APPEND abi ${hash})
endforeach()
string(SHA256 EDGE_BACKEND_ABI "${abi}")

# edge_gpu_library(): the host's half, in every device's library.
function(edge_gpu_library)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/gpu/*.cc)
  add_library(edge_backend_gpu STATIC ${sources})
  target_include_directories(edge_backend_gpu PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(edge_backend_gpu PRIVATE EDGE_BACKEND_ABI="${EDGE_BACKEND_ABI}")
  target_link_libraries(edge_backend_gpu PRIVATE edge_options edge_baseline PUBLIC edge_tensor edge_base)
endfunction()

# edge_emulated_device(target type header_directory sources...): a device's library for the CPU, with
# tests/emulation/<header_directory> before its toolkit's headers. As objects of a test it has
# AddressSanitizer, which sees what goes beyond shared memory, unless the whole build has another
# sanitizer.
function(edge_emulated_device target type headers)
  set(emulation ${PROJECT_SOURCE_DIR}/tests/emulation)
  add_library(${target} ${type} ${ARGN})
  set(kernels ${ARGN})
  list(FILTER kernels INCLUDE REGEX "\\.(cu|metal)$")
  set_source_files_properties(${kernels} TARGET_DIRECTORY ${target} PROPERTIES
    LANGUAGE CXX COMPILE_OPTIONS "-xc++;-Wno-attributes")  # Metal has its own
  target_include_directories(${target} PUBLIC ${emulation}/${headers} ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${target} PRIVATE edge_options edge_baseline PUBLIC edge_backend_gpu)
  if(type STREQUAL OBJECT AND NOT EDGE_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=address -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address)
  endif()
  target_compile_options(${target} PRIVATE -O1)
endfunction()
