#include "backends/metal/dialect.h"
#include "backends/gpu/embed.inl.h"
