# edge_manylinux(module): a Python module, or what it opens, for systems from glibc 2.28 on, linked on a newer one. The
# C++ runtime is in it, old versions of symbols are asked for, and what is missing there is added.
# auditwheel says whether that was enough (`make wheels`).
function(edge_manylinux module)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(base_version GLIBC_2.2.5)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(base_version GLIBC_2.17)
  else()
    message(FATAL_ERROR "EDGE_MANYLINUX: ${CMAKE_SYSTEM_PROCESSOR} is neither x86_64 nor aarch64")
  endif()
  set(here ${PROJECT_SOURCE_DIR}/cmake)
  set(versions ${CMAKE_CURRENT_BINARY_DIR}/libpthread_2_28.map)
  file(WRITE ${versions} "${base_version} { global: pthread_*; };\n")
  if(NOT TARGET edge_libpthread)
    add_library(edge_libpthread SHARED ${here}/libpthread_2_28.cc)
    target_compile_options(edge_libpthread PRIVATE -fvisibility=default -fno-builtin)
    target_link_options(edge_libpthread PRIVATE -nostdlib -Wl,-soname,libpthread.so.0
                                                -Wl,--version-script=${versions})
    set_target_properties(edge_libpthread PROPERTIES NO_SONAME ON LINK_DEPENDS ${versions})
  endif()

  target_sources(${module} PRIVATE ${here}/glibc_2_28.cc)
  target_link_libraries(${module} PRIVATE edge_libpthread)
  # libgcc_s stays shared: the one built here would ask for a newer glibc's unwinder.
  target_link_options(${module} PRIVATE -static-libstdc++ -Wl,--gc-sections
                                        -Wl,--version-script=${here}/python_module.map)
  set_target_properties(${module} PROPERTIES SKIP_BUILD_RPATH ON
                                             LINK_DEPENDS ${here}/python_module.map)
endfunction()
