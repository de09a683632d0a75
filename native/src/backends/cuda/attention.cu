#include "backends/cuda/dialect.h"
#include "backends/gpu/attention.inl.h"
