// edge_mutate SEED.edge N_RANDOM [--seed S]: opens every mutation of a valid file and demands a
// typed error for it. Exits with 1 if a mutant is accepted, fails untyped or takes over a second.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "base/os.h"
#include "mutations.h"
#include "open_all.h"

namespace {

using edge::Code;
using edge::Status;
using edge::fuzz::Expect;

struct Counts {
  std::map<std::string, uint64_t> by_code;
  uint64_t n_passed = 0;
  uint64_t n_failed = 0;
  uint64_t n_still_valid = 0;  // resealed headers that describe a valid file
  double slowest_ms = 0;
};

void report(const std::string& what, const std::string& why) {
  std::fprintf(stderr, "FAILED %s: %s\n", what.c_str(), why.c_str());
}

bool is_input_error(Code code) {
  const std::string_view kind = edge::code_class(code);
  return kind == "FormatError" || kind == "IntegrityError" || kind == "UnsupportedError";
}

void check(const std::string& what, std::span<const std::byte> mutant, Expect expect,
           Counts& counts) {
  const int64_t start_ns = edge::monotonic_ns();
  const Status status = edge::fuzz::open_all(mutant);
  const double ms = static_cast<double>(edge::monotonic_ns() - start_ns) * 1e-6;
  counts.slowest_ms = ms > counts.slowest_ms ? ms : counts.slowest_ms;
  bool passed = true;
  if (status.is_ok()) {
    passed = expect == Expect::kTyped;
    counts.n_still_valid += passed ? 1 : 0;
    if (!passed) report(what, "accepted");
  } else if (!is_input_error(status.code()) || status.message().empty()) {
    passed = false;
    report(what, "code " + std::string(edge::code_name(status.code())) + " is no input error");
  }
  if (ms > 1000) {
    passed = false;
    report(what, "took " + std::to_string(ms) + " ms");
  }
  ++(passed ? counts.n_passed : counts.n_failed);
  ++counts.by_code[std::string(edge::code_name(status.code()))];
}

}  // namespace

int main(int argc, char** argv) {
  const bool has_seed = argc == 5 && std::strcmp(argv[3], "--seed") == 0;
  if (argc != 3 && !has_seed) {
    std::fprintf(stderr, "usage: edge_mutate SEED.edge N_RANDOM [--seed S]\n");
    return 2;
  }
  auto file = edge::MappedFile::open(argv[1]);
  if (!file.is_ok()) {
    std::fprintf(stderr, "%s\n", file.status().message().c_str());
    return 2;
  }
  const auto bytes = file.value().bytes();
  const Status intact = edge::fuzz::open_all(bytes);
  if (!intact.is_ok()) {
    std::fprintf(stderr, "the seed itself is refused: %s\n", intact.message().c_str());
    return 2;
  }
  Counts counts;
  edge::fuzz::for_each_mutation({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                                std::strtoull(argv[2], nullptr, 10),
                                has_seed ? std::strtoull(argv[4], nullptr, 10) : 1,
                                [&](const std::string& what, std::span<const std::byte> mutant,
                                    Expect expect) { check(what, mutant, expect, counts); });
  for (const auto& [code, n] : counts.by_code) {
    std::printf("%10llu  %s\n", static_cast<unsigned long long>(n), code.c_str());
  }
  std::printf("%llu resealed headers still valid, slowest %.1f ms\n",
              static_cast<unsigned long long>(counts.n_still_valid), counts.slowest_ms);
  std::printf("%llu passed, %llu failed\n", static_cast<unsigned long long>(counts.n_passed),
              static_cast<unsigned long long>(counts.n_failed));
  return counts.n_failed == 0 && counts.n_passed > 0 ? 0 : 1;
}
