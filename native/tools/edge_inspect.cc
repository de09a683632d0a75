// edge_inspect: what a `.edge` file holds, and with --verify whether every byte is right.
#include <cinttypes>
#include <cstdio>
#include <string>

#include "args.h"
#include "edgellm/engine.h"

namespace {

constexpr size_t kMaxValueBytes = 100;  // of a metadata value in the listing

std::string shown(std::string_view text) {
  std::string line = edgellm::sanitize(text.substr(0, kMaxValueBytes));
  for (char& c : line) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  if (text.size() > kMaxValueBytes) line += "... (" + std::to_string(text.size()) + " bytes)";
  return line;
}

void list(const std::string& path) {
  const edgellm::EdgeFile file(path);
  std::printf("root        %s\nfile bytes  %" PRIu64 "\ndata start  %" PRIu64 "\n",
              shown(file.root()).c_str(), file.file_bytes(), file.data_start());
  for (const auto& [key, value] : file.metadata()) {
    std::printf("%s: %s\n", shown(key).c_str(), shown(value).c_str());
  }
  std::printf("%-32s %-12s %-6s %-4s %8s %8s %12s\n", "tensor", "role", "format", "act", "rows",
              "cols", "bytes");
  for (const edgellm::TensorInfo& tensor : file.tensors()) {
    std::printf("%-32s %-12s %-6s %-4s %8" PRId64 " %8" PRId64 " %12" PRIu64 "\n",
                shown(tensor.name).c_str(), shown(tensor.role).c_str(), tensor.format.c_str(),
                tensor.act.c_str(), tensor.n_rows, tensor.n_cols, tensor.n_bytes);
  }
}

void verify(const std::string& path) {
  const edgellm::VerifyResult result = edgellm::verify_file(path);
  std::printf("verified    %" PRIu64 " leaves in %.1f ms, %.2f GB/s\n", result.n_leaves,
              result.verify_ms, static_cast<double>(result.file_bytes) / (result.verify_ms * 1e6));
}

}  // namespace

int main(int argc, char** argv) {
  edge_tools::Args args(argc, argv);
  const bool wants_verify = args.flag("--verify");
  const auto words = args.positional(1, "edge_inspect FILE [--verify]");
  if (!words) return edge_tools::kExitUsage;
  try {
    list((*words)[0]);
    if (wants_verify) verify((*words)[0]);
    return 0;
  } catch (const edgellm::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.code().c_str(), edgellm::sanitize(error.what()).c_str());
    return edge_tools::kExitFailure;
  }
}
