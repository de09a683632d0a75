# The CUDA backend, src/backends/cuda, a shared library of its own. Its sources are compiled by nvcc
# where EDGE_BUILD_CUDA asks for it (off: most machines that build this have no nvcc), and for the CPU
# with the runtime that tests/emulation stands in for (edge_emulated_device() of gpu.cmake).
option(EDGE_BUILD_CUDA "Build libedgellm_cuda.so; needs nvcc 12.8 or newer" OFF)
set(EDGE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100-real 120 CACHE STRING
    "Chips that libedgellm_cuda.so has code for; the last one's PTX, too")
if(EDGE_BUILD_CUDA)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know what nvcc 13 can
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
endif()
file(GLOB EDGE_CUDA_HOST CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/cuda/*.cc)
file(GLOB EDGE_CUDA_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/cuda/*.cu)

# edge_cuda_library(): libedgellm_cuda.so. No fused multiply-add but where the source says so: the
# sums are the CPU's (docs/backends.md).
function(edge_cuda_library)
  add_library(edgellm_cuda SHARED ${EDGE_CUDA_HOST} ${EDGE_CUDA_KERNELS})
  set_target_properties(edgellm_cuda PROPERTIES
    CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
    CUDA_ARCHITECTURES "${EDGE_CUDA_ARCHITECTURES}"
    CUDA_VISIBILITY_PRESET hidden)
  target_compile_options(edgellm_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false --expt-relaxed-constexpr>)
  target_include_directories(edgellm_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_include_directories(edgellm_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(edgellm_cuda PRIVATE edge_backend_gpu CUDA::cudart_static)
  target_link_options(edgellm_cuda PRIVATE -Wl,--exclude-libs,ALL)
endfunction()
