// Paged attention of a step's rows.
#pragma once

#include "backends/gpu/step_rows.h"

namespace edge::gpu {

// softmax(q K^T) V to q, as many rows at a time as there is room for their segments.
void attend(Launcher& launcher, StepRows& rows, const FloatMatrix& q, const AttentionShape& shape,
            const KvLayerLayout& kv);

}  // namespace edge::gpu
