#include "backends/gpu/short_conv.inl.h"
#include "backends/metal/dialect.h"
