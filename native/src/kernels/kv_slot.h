// What is in a page, read and moved token by token: for what happens between steps. Attention reads
// pages in registers, and equals this.
#pragma once

#include "kernels/kv_format.h"

namespace edge {

// The key or the value as attention sees it, [head_dim].
void load_key(const KvSlot& from, float* key);
void load_value(const KvSlot& from, float* value);

// Byte for byte; both have the same KvHead but for where it begins.
void move_slot(const KvSlot& from, const KvSlot& to);

}  // namespace edge
