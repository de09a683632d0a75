// Environment variables for tests. Test code only.
#pragma once

#include <cstdlib>
#include <string>

namespace edge::test {

// An empty value removes the variable.
inline void set_environment(const char* name, const std::string& value) {
#if defined(_WIN32)
  ::_putenv_s(name, value.c_str());
#else
  if (value.empty()) {
    ::unsetenv(name);
  } else {
    ::setenv(name, value.c_str(), 1);
  }
#endif
}

}  // namespace edge::test
