// The types and functions of C that headers for any compiler begin with. The Metal Shading Language
// has the types without a header, and no memcpy().
#pragma once

#if !defined(__METAL_VERSION__)
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#endif
