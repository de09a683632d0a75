#include "backends/metal/dialect.h"
#include "backends/gpu/attention.inl.h"
