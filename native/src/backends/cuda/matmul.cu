#include "backends/cuda/dialect.h"
#include "backends/gpu/matmul.inl.h"
