# libedgellm: the C interface (include/edgellm/c_api.h) as one shared library that exports nothing
# else, with its headers and a pkg-config file.
include(GNUInstallDirs)

set(EDGELLM_ABI_VERSION 1)  # c_api.h has the same; tests compare
file(GLOB c_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/api/c_*.cc)
add_library(edgellm SHARED ${c_sources})
target_include_directories(edgellm PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
                                          $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_definitions(edgellm PRIVATE EDGELLM_BUILDING EDGELLM_VERSION="${EDGELLM_VERSION}")
target_link_libraries(edgellm PRIVATE edge_options edge_baseline edge_api)
set_target_properties(edgellm PROPERTIES SOVERSION ${EDGELLM_ABI_VERSION}
                                         VERSION ${EDGELLM_ABI_VERSION}.0.0)
option(EDGE_APPLE_FRAMEWORK "Build the C interface as edgellm.framework" OFF)
if(EDGE_APPLE_FRAMEWORK)
  set_target_properties(edgellm PROPERTIES FRAMEWORK ON MACOSX_FRAMEWORK_IDENTIFIER org.edgellm.edgellm
    PUBLIC_HEADER "include/edgellm/c_api.h;include/edgellm/c_codes.h")
endif()
# Hidden visibility leaves out our own C++, not the templates of the standard library.
if(APPLE)
  target_link_options(edgellm PRIVATE -Wl,-exported_symbol,_edgellm_*)
elseif(UNIX)
  set(exports ${CMAKE_CURRENT_SOURCE_DIR}/cmake/c_library.map)
  target_link_options(edgellm PRIVATE -Wl,--version-script=${exports})
  set_target_properties(edgellm PROPERTIES LINK_DEPENDS ${exports})
endif()

# A wheel has the Python module only.
if(EDGE_BUILD_SHARED)
  # Relative, so that the installed tree can be moved and `cmake --install --prefix` tells the truth.
  file(RELATIVE_PATH EDGELLM_PC_TO_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
  configure_file(${CMAKE_CURRENT_SOURCE_DIR}/cmake/edgellm.pc.in edgellm.pc @ONLY)
  install(TARGETS edgellm)
  if(WIN32)  # which opens this beside itself
    install(TARGETS edgellm_npu LIBRARY DESTINATION ${CMAKE_INSTALL_BINDIR})
  elseif(NOT EDGE_APPLE_FRAMEWORK)
    install(TARGETS edgellm_npu LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  endif()
  install(FILES include/edgellm/c_api.h include/edgellm/c_codes.h
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/edgellm)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/edgellm.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
