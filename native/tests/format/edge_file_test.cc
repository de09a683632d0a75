#include "format/edge_file.h"

#include "attack_files.h"
#include "format/verifier.h"

using namespace edge;
using namespace edge::testing;

namespace {

// Open and, if that works, verify everything.
Status open_and_verify(const std::string& file) {
  const AlignedBytes bytes(file);
  auto opened = EdgeFile::from_bytes(bytes.bytes(), "attack.edge");
  if (!opened.is_ok()) return opened.status();
  return Verifier::start(opened.value(), VerifyMode::kAlways, 1).status();
}

}  // namespace

TEST_CASE("the unspoiled file of the attack table opens and verifies") {
  const AttackTable table = load_attack_table();
  const AlignedBytes bytes(build(table, Case{}));
  auto opened = EdgeFile::from_bytes(bytes.bytes(), "base.edge");
  REQUIRE_MESSAGE(opened.is_ok(), opened.status().message());
  const EdgeFile& file = *opened.value();
  CHECK(file.data_start() == kAttackDataStart);
  CHECK(file.metadata("edgellm.spec") == R"({"arch":"none"})");
  CHECK(file.metadata("no such key").empty());
  CHECK(file.root_hex().size() == 64);
  REQUIRE(file.tensors().size() == 4);
  const TensorEntry* weight = file.find("w");
  REQUIRE(weight != nullptr);
  CHECK(weight->role == "ffn_up");
  CHECK(weight->tensor.format == Format::kE4_16);
  CHECK(weight->tensor.act == Act::kA8);
  CHECK(weight->tensor.n_rows == 17);
  CHECK(weight->tensor.n_cols == 40);
  CHECK(weight->tensor.n_bytes == 1280);
  CHECK(std::to_integer<int>(weight->tensor.data[250]) == 250);
  const TensorEntry* note = file.find("note");
  REQUIRE(note != nullptr);
  CHECK(note->tensor.n_bytes == 10);
  CHECK(std::memcmp(note->tensor.data, "edge file!", 10) == 0);
  CHECK(file.find("nothing") == nullptr);
  CHECK(file.hashed_bytes().size() == 1408);
  CHECK(file.leaf_hashes().size() == 32);
  CHECK(open_and_verify(build(table, Case{})).is_ok());
}

TEST_CASE("every attack file is refused with its own code") {
  const AttackTable table = load_attack_table();
  REQUIRE(table.cases.size() > 80);
  for (const Case& attack : table.cases) {
    CAPTURE(attack.name);
    const Status status = open_and_verify(build(table, attack));
    CAPTURE(status.message());
    CHECK(code_name(status.code()) == attack.code);
  }
}

TEST_CASE("an attack file gives the same code from disk as from memory") {
  const AttackTable table = load_attack_table();
  const std::string path = "edge_file_test.tmp";
  for (size_t i = 0; i < table.cases.size(); i += 9) {
    const Case& attack = table.cases[i];
    const std::string file = build(table, attack);
    write_file(path, file);
    const Status from_disk = EdgeFile::open(path).status();
    const AlignedBytes bytes(file);
    CHECK(from_disk.code() == EdgeFile::from_bytes(bytes.bytes(), "x").status().code());
  }
  std::remove(path.c_str());
}

TEST_CASE("messages name the file and never carry its control characters") {
  const AttackTable table = load_attack_table();
  Case attack;
  attack.edits = {{R"("w":{)", R"("w\u001b[31m":{)"}, {R"(\"w\":{)", R"(\"w\\u001b[31m\":{)"}};
  const Status status = open_and_verify(build(table, attack));
  CHECK(status.code() == Code::kTensorName);
  CHECK(status.message().starts_with("attack.edge: "));
  CHECK(status.message().find('\x1b') == std::string::npos);
}

TEST_CASE("no single flipped bit anywhere in the file is accepted") {
  const AttackTable table = load_attack_table();
  std::string file = build(table, Case{});
  AlignedBytes aligned(file);
  auto* bytes = const_cast<std::byte*>(aligned.bytes().data());
  size_t n_accepted = 0;
  for (size_t i = 0; i < file.size(); i += i < 8 || i >= kAttackDataStart ? 1 : 13) {
    bytes[i] ^= std::byte{1};
    auto opened = EdgeFile::from_bytes(aligned.bytes(), "flip.edge");
    if (opened.is_ok() && Verifier::start(opened.value(), VerifyMode::kAlways, 1).is_ok()) {
      ++n_accepted;
    }
    bytes[i] ^= std::byte{1};
  }
  CHECK(n_accepted == 0);
}

TEST_CASE("a missing file, a directory and misaligned bytes have their codes") {
  CHECK(EdgeFile::open("no/such/file.edge").status().code() == Code::kFileNotFound);
  CHECK(EdgeFile::open(".").status().code() == Code::kFileUnreadable);
  const AlignedBytes bytes(std::string(100, ' '));
  CHECK(EdgeFile::from_bytes(bytes.bytes().subspan(1), "x").status().code() ==
        Code::kInvalidArgument);
}

TEST_CASE("more tensors than the cap are refused") {
  std::string header = R"({"__metadata__":{"edgellm.version":"0","edgellm.header_sha256":")" +
                       std::string(64, '0') +
                       R"(","edgellm.root":"","edgellm.requires":"[]","edgellm.spec":"{}",)"
                       R"("edgellm.tensors":"{}"})";
  for (uint64_t i = 0; i <= kMaxTensors; ++i) header += ",\"t" + std::to_string(i) + "\":0";
  header += "}";
  const size_t data_start = (header.size() + 8 + 16383) / 16384 * 16384;
  CHECK(open_and_verify(seal(header, data_start)).code() == Code::kTooManyTensors);
}
