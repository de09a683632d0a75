#include "backends/cuda/dialect.h"
#include "backends/gpu/short_conv.inl.h"
