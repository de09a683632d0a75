#include "backends/cuda/dialect.h"
#include "backends/gpu/rows.inl.h"
