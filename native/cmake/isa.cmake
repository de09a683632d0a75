# edge_isa_sources(target): adds src/kernels/<isa>/*.cc, each directory with its own flags. The
# baseline of everything else is x86-64-v2 / armv8.0; dispatch is at run time (kernels/select.cc).
# Objects must not leak inline functions: tests check that they define no weak symbol.
# -O2 where fma is software: unrolling it further only makes the module larger.
set(EDGE_ISA_scalar -O2)
set(EDGE_ISA_x86_sse41 -march=x86-64-v2 -O2)
set(EDGE_ISA_x86_avx2 -march=x86-64-v3)
set(EDGE_ISA_x86_avx512vnni -march=x86-64-v4 -mavx512vnni -mprefer-vector-width=512)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 105593: AVX-512 intrinsics with an undefined pass-through operand warn about it.
  list(APPEND EDGE_ISA_x86_avx512vnni -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

function(edge_isa_sources target)
  set(isas scalar)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND isas x86_sse41 x86_avx2 x86_avx512vnni)
  endif()
  foreach(isa ${isas})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/kernels/${isa}/*.cc)
    if(sources)
      add_library(edge_kernels_${isa} OBJECT ${sources})
      target_include_directories(edge_kernels_${isa} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
      target_compile_options(edge_kernels_${isa} PRIVATE -fno-exceptions)
      target_link_libraries(edge_kernels_${isa} PRIVATE edge_options)
      if(DEFINED EDGE_ISA_${isa})
        target_compile_options(edge_kernels_${isa} PRIVATE ${EDGE_ISA_${isa}})
      endif()
      if(EDGE_SANITIZE)
        # Forced inlining times instrumentation makes GCC take minutes a file above -O1.
        target_compile_options(edge_kernels_${isa} PRIVATE -O1)
      endif()
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:edge_kernels_${isa}>)
    endif()
  endforeach()
endfunction()
