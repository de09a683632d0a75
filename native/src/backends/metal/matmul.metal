#include "backends/metal/dialect.h"
#include "backends/gpu/matmul.inl.h"
