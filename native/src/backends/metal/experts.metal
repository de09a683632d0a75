#include "backends/gpu/experts.inl.h"
#include "backends/metal/dialect.h"
