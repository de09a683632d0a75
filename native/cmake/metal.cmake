# The Metal backend, src/backends/metal. Where EDGE_BUILD_METAL asks for it, on macOS and for iOS, its
# kernels are compiled by Apple's compiler and its host is linked into what opens backends; everywhere
# tests compile both for the CPU (edge_emulated_device() of gpu.cmake).
option(EDGE_BUILD_METAL "Build the Metal backend; needs Xcode's metal compiler" OFF)
file(GLOB EDGE_METAL_HOST CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/metal/*.cc)
file(GLOB EDGE_METAL_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/metal/*.metal)

# edge_metal_library(): edge_backend_metal, with the compiled kernels inside. No fused multiply-add but
# where the source says so: the sums are the CPU's (docs/backends.md).
function(edge_metal_library)
  if(NOT APPLE)
    message(FATAL_ERROR "EDGE_BUILD_METAL is for macOS and iOS; elsewhere the tests emulate it")
  endif()
  enable_language(OBJCXX)
  set(sdk macosx)
  if(CMAKE_SYSTEM_NAME STREQUAL iOS)
    set(sdk iphoneos)
    if(CMAKE_OSX_SYSROOT MATCHES "[Ss]imulator")
      set(sdk iphonesimulator)
    endif()
  endif()
  set(airs "")
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backends/gpu/*.h
       ${PROJECT_SOURCE_DIR}/src/backends/metal/*.h)
  foreach(kernel ${EDGE_METAL_KERNELS})
    get_filename_component(name ${kernel} NAME_WE)
    set(air ${PROJECT_BINARY_DIR}/metal/${name}.air)
    add_custom_command(OUTPUT ${air} DEPENDS ${kernel} ${headers} VERBATIM
      COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/metal
      COMMAND xcrun -sdk ${sdk} metal -c ${kernel} -o ${air} -std=metal3.0 -O2 -fno-fast-math
              -ffp-contract=off -Wall -Wno-c++17-extensions -I ${PROJECT_SOURCE_DIR}/src)
    list(APPEND airs ${air})
  endforeach()
  set(library ${PROJECT_BINARY_DIR}/metal/edgellm.metallib)
  add_custom_command(OUTPUT ${library} DEPENDS ${airs} VERBATIM
    COMMAND xcrun -sdk ${sdk} metallib ${airs} -o ${library})
  set(host ${PROJECT_SOURCE_DIR}/src/backends/metal/host.mm)
  set_source_files_properties(${host} PROPERTIES OBJECT_DEPENDS ${library}
    COMPILE_OPTIONS -fobjc-arc COMPILE_DEFINITIONS EDGE_METALLIB="${library}")
  add_library(edge_backend_metal STATIC ${EDGE_METAL_HOST} ${host})
  target_link_libraries(edge_backend_metal PRIVATE edge_options edge_baseline "-framework Foundation"
                        "-framework Metal" PUBLIC edge_backend_gpu)
  target_compile_definitions(edge_backends PRIVATE EDGE_METAL_LINKED)
  target_link_libraries(edge_backends PRIVATE edge_backend_metal)
endfunction()
