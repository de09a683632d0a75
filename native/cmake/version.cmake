# EDGELLM_VERSION: that of the Python package, as the wheel build knows it or as the package says it.
if(DEFINED SKBUILD_PROJECT_VERSION_FULL)
  set(EDGELLM_VERSION ${SKBUILD_PROJECT_VERSION_FULL})
elseif(DEFINED SKBUILD_PROJECT_VERSION)
  set(EDGELLM_VERSION ${SKBUILD_PROJECT_VERSION})
else()
  file(STRINGS ${PROJECT_SOURCE_DIR}/../edgellm/__init__.py version_line REGEX "^__version__ = ")
  string(REGEX REPLACE ".*\"(.*)\".*" "\\1" EDGELLM_VERSION "${version_line}")
endif()
