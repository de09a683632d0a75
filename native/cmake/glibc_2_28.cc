// What the compiler and libstdc++ ask of glibc and version 2.28 lacks, for 64-bit Linux. The names
// and contracts are glibc's; hidden, so that nothing outside the module sees them. Structures of
// the kernel and of glibc are the same on x86-64 and aarch64, so the system calls fill them
// directly.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "checked for Linux on x86-64 and aarch64 only"
#endif

extern "C" {

// 2.32. Only an optimisation: true would let reference counts do without atomic instructions.
extern char __libc_single_threaded;
char __libc_single_threaded = 0;

// 2.33; before, they were inline functions.
int stat(const char* path, struct stat* out) noexcept {
  return static_cast<int>(::syscall(SYS_newfstatat, AT_FDCWD, path, out, 0));
}

int fstat(int fd, struct stat* out) noexcept {
  return static_cast<int>(::syscall(SYS_fstat, fd, out));
}

// 2.30.
pid_t gettid() noexcept { return static_cast<pid_t>(::syscall(SYS_gettid)); }

}  // extern "C"
