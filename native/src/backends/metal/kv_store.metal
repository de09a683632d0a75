#include "backends/metal/dialect.h"
#include "backends/gpu/kv_store.inl.h"
