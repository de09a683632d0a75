// That whole models have the CPU's bits on another backend, every logit and every hidden state.
#pragma once

#include <string>

#include "backend_ops_check.h"

namespace edge::test {

// Two layers, one with a window, in every format of KV.
void check_tiny_models(const MakeBackend& make);
// The model of a file: a prompt in two parts and n_new greedy tokens.
void check_model(const MakeBackend& make, const std::string& path, int n_new);

}  // namespace edge::test
