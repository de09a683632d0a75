# edge_options: compile flags of our own targets. Third-party headers are SYSTEM includes.
# edge_baseline: the instruction set of everything outside kernels/<isa>/.
# edge_cold: what runs once a file or a call is compiled small, which is a third of the size.
add_library(edge_options INTERFACE)
add_library(edge_baseline INTERFACE)
add_library(edge_cold INTERFACE)
target_compile_options(edge_cold INTERFACE $<$<CONFIG:Release>:-Os>)
if(MSVC)
  target_compile_options(edge_options INTERFACE /W4 /WX /fp:precise /utf-8)
else()
  # -ffp-contract=off: a fused multiply-add happens only where the source says fma (docs/KERNELS.md).
  target_compile_options(
    edge_options INTERFACE -Wall -Wextra -Wconversion -Wshadow -Wno-psabi -Werror -ffp-contract=off
                           -fno-fast-math)
  # One section a function, so that the link leaves out what nothing calls.
  target_compile_options(edge_baseline INTERFACE -ffunction-sections -fdata-sections)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(edge_baseline INTERFACE -march=x86-64-v2)
  endif()
  if(EDGE_SANITIZE)
    target_compile_options(edge_options INTERFACE -fsanitize=${EDGE_SANITIZE} -fno-sanitize-recover=all
                                                  -fno-omit-frame-pointer)
    target_link_options(edge_options INTERFACE -fsanitize=${EDGE_SANITIZE})
  endif()
endif()
