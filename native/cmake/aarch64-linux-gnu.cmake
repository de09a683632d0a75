# Linux on ARM, from any Linux: Debian's package g++-aarch64-linux-gnu. Tests run under qemu-user
# (package qemu-user); the environment variable QEMU_CPU chooses the processor.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

find_program(EDGE_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
if(EDGE_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${EDGE_QEMU} -L /usr/aarch64-linux-gnu)
endif()
