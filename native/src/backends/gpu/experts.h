// Mixtures of experts on the device: Backend::moe_route() and moe_ffn().
#pragma once

#include "backends/gpu/launcher.h"

namespace edge::gpu {

void route_experts(Launcher& launcher, const ActRows& act, const MoeTensors& tensors,
                   const MoeShape& shape, const MoeRoutes& out);

// n_rows of one ffn: `out` = quant(f(gate) * up), products that are on the device already; null
// biases and a null `up` are left out.
struct Activation {
  FfnAct act = FfnAct::kSilu;
  const float* gate = nullptr;
  const float* up = nullptr;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  int64_t n_bias = 0;
  int64_t stride = 0;  // a multiple of 16
};
void activate(Launcher& launcher, const Activation& from, ActNeeds needs, const ActRows& out);

void run_experts(Launcher& launcher, const ActRows& act, const MoeTensors& tensors,
                 const MoeShape& shape, const MoeRoutes& routes, const MoeBuffers& buffers,
                 float* delta, int64_t stride);

}  // namespace edge::gpu
