#include "backends/cuda/dialect.h"
#include "backends/gpu/experts.inl.h"
