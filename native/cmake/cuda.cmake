# The CUDA backend, src/backends/cuda. Its sources are compiled twice: by nvcc to a shared object of
# its own (EDGE_BUILD_CUDA, off by default: most machines that build this have no nvcc), and for the
# CPU, with the runtime that tests/emulation stands in for, for the tests (edge_emulated_cuda()).
file(GLOB EDGE_CUDA_HOST CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/cuda/*.cc)
file(GLOB EDGE_CUDA_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/cuda/*.cu)

# edge_emulated_cuda(target): sources as a static library with AddressSanitizer, which sees what goes
# beyond shared memory; another sanitizer of the whole build is left alone.
function(edge_emulated_cuda target)
  set(emulation ${PROJECT_SOURCE_DIR}/tests/emulation)
  set(kernels ${EDGE_CUDA_KERNELS} ${emulation}/mutants.cu)
  add_library(${target} STATIC ${EDGE_CUDA_HOST} ${kernels} ${emulation}/lockstep.cc)
  set_source_files_properties(${kernels} TARGET_DIRECTORY ${target} PROPERTIES
    LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  target_include_directories(${target} PUBLIC ${emulation}/cuda ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${target} PRIVATE edge_options edge_baseline PUBLIC edge_backends)
  if(NOT EDGE_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=address -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address)
  endif()
  target_compile_options(${target} PRIVATE -O1)
endfunction()
