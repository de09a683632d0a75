#include "backends/cuda/dialect.h"
#include "backends/gpu/embed.inl.h"
