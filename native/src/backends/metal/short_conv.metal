#include "backends/metal/dialect.h"
#include "backends/gpu/short_conv.inl.h"
