// What libedgellm_npu exports.
#include "backends/npu/ort_graphs.h"

#if defined(_WIN32)
#define EDGE_EXPORTED __declspec(dllexport)
#else
#define EDGE_EXPORTED __attribute__((visibility("default")))
#endif

extern "C" EDGE_EXPORTED edge::StepGraphs* edgellm_npu_open(const char* abi,
                                                            const edge::GraphSettings& settings,
                                                            edge::Status* why) {
  if (std::string_view(abi) != EDGE_GRAPHS_ABI) {
    *why = {edge::Code::kDeviceUnavailable,
            "libedgellm_npu is of another build than this program; install edgellm again"};
    return nullptr;
  }
  auto graphs = edge::npu::OrtGraphs::open(settings);
  *why = graphs.status();
  return graphs.is_ok() ? graphs.take().release() : nullptr;
}
