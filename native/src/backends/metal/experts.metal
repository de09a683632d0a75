#include "backends/metal/dialect.h"
#include "backends/gpu/experts.inl.h"
