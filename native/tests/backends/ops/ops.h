// The ops of a Backend as the decoder uses them: one struct each, run by backend_ops_test on every
// backend against the scalar CPU, and by edge_ops as a micro-benchmark. Equality is of bits; there
// is no tolerance to choose.
#pragma once

#include <string>
#include <vector>

#include "rig.h"

namespace edge::test {

struct Op {
  const char* name;
  // Queues it, between begin_step() and end_step(). What an earlier op of the list makes is there.
  void (*run)(OpRig& rig);
  // What it made, once nothing is queued.
  std::string (*result)(const OpRig& rig);
  // Floating point or integer operations, and bytes that must be read or written at least.
  double (*flops)(const OpShape& shape);
  double (*bytes)(const OpShape& shape);
};

// In the order of a layer.
const std::vector<Op>& all_ops();

// What Backend::top() gives of a row.
TopTokens top_of(std::span<const float> logits);

// What the ops made of one step, in their order; kNumeric and others as end_step() says.
Result<std::vector<std::string>> run_ops(OpRig& rig);

// Milliseconds of one run among n that are queued together, behind one that is not timed.
double time_ms(OpRig& rig, const Op& op, int n, Status& status);

}  // namespace edge::test
