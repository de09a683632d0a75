#include "open_all.h"

#include "format/edge_file.h"
#include "format/json.h"
#include "format/verifier.h"

namespace edge::fuzz {

namespace {

// Reads a byte of every tensor, so that a bad range is a fault here and not in some kernel.
unsigned touch(const EdgeFile& file) {
  unsigned sum = 0;
  for (const TensorEntry& entry : file.tensors()) {
    sum += std::to_integer<unsigned>(entry.tensor.data[0]);
    sum += std::to_integer<unsigned>(entry.tensor.data[entry.tensor.n_bytes - 1]);
  }
  return sum;
}

}  // namespace

Status open_all(std::span<const std::byte> bytes) {
  EDGE_ASSIGN_OR_RETURN(const std::shared_ptr<const EdgeFile> file,
                        EdgeFile::from_bytes(bytes, "mutant"));
  EDGE_RETURN_IF_ERROR(Verifier::start(file, VerifyMode::kAlways, 1).status());
  volatile unsigned sink = touch(*file);
  static_cast<void>(sink);
  EDGE_RETURN_IF_ERROR(Json::parse(file->metadata("edgellm.spec")).status());
  return {};
}

}  // namespace edge::fuzz
