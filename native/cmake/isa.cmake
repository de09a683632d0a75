# edge_isa_sources(target): adds src/kernels/<isa>/*.cc, each directory with its own flags. The
# baseline of everything else is x86-64-v2 / armv8.0; dispatch is at run time (kernels/select.cc).
# Objects must not leak inline functions: tests check that they define no weak symbol.
# -O2 where fma is software: unrolling it further only makes the module larger.
set(EDGE_ISA_scalar -O2)
set(EDGE_ISA_x86_sse41 -march=x86-64-v2 -O2)
set(EDGE_ISA_x86_avx2 -march=x86-64-v3)
set(EDGE_ISA_x86_avxvnni -march=x86-64-v3 -mavxvnni)
set(EDGE_ISA_x86_avx512bw -march=x86-64-v4 -mprefer-vector-width=512)
set(EDGE_ISA_x86_avx512vnni -march=x86-64-v4 -mavx512vnni -mprefer-vector-width=512)
set(EDGE_ISA_arm_neon -march=armv8-a)
set(EDGE_ISA_arm_neon_dot -march=armv8.2-a+dotprod)
set(EDGE_ISA_arm_neon_i8mm -march=armv8.2-a+dotprod+i8mm)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 105593: AVX-512 intrinsics with an undefined pass-through operand warn about it.
  list(APPEND EDGE_ISA_x86_avx512bw -Wno-maybe-uninitialized -Wno-uninitialized)
  list(APPEND EDGE_ISA_x86_avx512vnni -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

# Searches of the offline tools, code that hardly any CPU runs, and loops that are unrolled by hand:
# small.
function(edge_small_sources isa)
  set(small "")
  set(smallest "")
  set(options -O2)
  if(isa STREQUAL scalar)
    set(small attention elementwise encode gptq matmul_f32 variants)
    set(options -Os -DEDGE_SMALL)
  elseif(isa STREQUAL x86_sse41)
    set(small attention)
    set(options -O2 -DEDGE_SMALL)
    set(smallest variants)
  else()
    set(small encode gptq matmul_f32 variants)
  endif()
  foreach(name ${small})
    set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/src/kernels/${isa}/${name}.cc
      PROPERTIES COMPILE_OPTIONS "${options}")
  endforeach()
  foreach(name ${smallest})
    set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/src/kernels/${isa}/${name}.cc
      PROPERTIES COMPILE_OPTIONS "-Os;-DEDGE_SMALL")
  endforeach()
endfunction()

function(edge_isa_sources target)
  set(isas scalar)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND isas x86_sse41 x86_avx2 x86_avxvnni x86_avx512bw x86_avx512vnni)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
    list(APPEND isas arm_neon arm_neon_dot arm_neon_i8mm)
  endif()
  foreach(isa ${isas})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/kernels/${isa}/*.cc)
    if(sources)
      add_library(edge_kernels_${isa} OBJECT ${sources})
      target_include_directories(edge_kernels_${isa} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
      # Nothing in there throws or calls what does: tables for unwinding would only be bytes.
      target_compile_options(edge_kernels_${isa} PRIVATE -fno-exceptions -fno-unwind-tables
                                                         -fno-asynchronous-unwind-tables)
      target_link_libraries(edge_kernels_${isa} PRIVATE edge_options)
      if(DEFINED EDGE_ISA_${isa})
        target_compile_options(edge_kernels_${isa} PRIVATE ${EDGE_ISA_${isa}})
      endif()
      if(EDGE_SANITIZE)
        # Forced inlining times instrumentation makes GCC take minutes a file above -O1.
        target_compile_options(edge_kernels_${isa} PRIVATE -O1)
      else()
        edge_small_sources(${isa})
      endif()
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:edge_kernels_${isa}>)
    endif()
  endforeach()
endfunction()
