# Windows on x86-64, from any Linux: Debian's package g++-mingw-w64-x86-64-posix. Programs carry their
# C++ runtime. Under wine (package wine64) they run here, too.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)

find_program(EDGE_WINE NAMES wine64 wine)
if(EDGE_WINE)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${EDGE_WINE})
endif()
