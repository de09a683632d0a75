#include "backends/cuda/dialect.h"
#include "backends/gpu/kv_store.inl.h"
