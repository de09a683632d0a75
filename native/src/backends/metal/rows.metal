#include "backends/metal/dialect.h"
#include "backends/gpu/rows.inl.h"
