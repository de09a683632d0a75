// Sessions on disk, on a model made of hashes.
#include "runtime/session_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "doctest/doctest.h"
#include "hash_model.h"
#include "runtime/session.h"

namespace edge {
namespace {

using test::copy;
using test::HashModel;
using test::random_ids;

constexpr int kContext = 400;
constexpr double kNoBudgetMs = 1e12;

const SessionIdentity kIdentity{.model = "0a1b",
                                .spec = "2c",
                                .tokenizer = "",
                                .kv_format = "F16",
                                .kv_layout = "3d",
                                .rope = "only",
                                .adapter = ""};

// A path of this process that is removed at the end of the scope.
struct TempPath {
  std::string text =
      (std::filesystem::temp_directory_path() / ("edge_session_" + std::to_string(process_id())))
          .string();
  TempPath() { std::filesystem::remove(text); }
  ~TempPath() { std::filesystem::remove(text); }
};

struct Fixture {
  explicit Fixture(std::vector<int> windows = {0}) : model(std::move(windows)) {}

  std::unique_ptr<Session> fresh(int n_ctx = kContext) {
    return Session::create(batcher, cache, {.n_ctx = n_ctx}).take();
  }
  std::unique_ptr<Session> fed(std::span<const int32_t> ids) {
    std::unique_ptr<Session> session = fresh();
    feed(*session, ids);
    return session;
  }
  static void feed(Session& session, std::span<const int32_t> ids) {
    REQUIRE(session.append(ids).is_ok());
    REQUIRE(session.run(kNoBudgetMs, nullptr).is_ok());
  }

  HashModel model;
  Batcher batcher{model};
  KvCache cache{model.groups(), UINT64_MAX};
  TempPath path;
};

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Result<std::shared_ptr<const SessionFile>> open_bytes(const std::string& bytes) {
  return SessionFile::from_bytes(std::as_bytes(std::span(bytes)), "a test");
}

// `bytes` with this header, and the digest that goes with it.
std::string with_header(const std::string& bytes, const std::string& header) {
  uint32_t n_before = 0;
  std::memcpy(&n_before, bytes.data() + 12, sizeof n_before);
  const auto n = static_cast<uint32_t>(header.size());
  std::string prefix = bytes.substr(0, 16);
  std::memcpy(prefix.data() + 12, &n, sizeof n);
  const std::string hashed = prefix + header;
  const Sha256Digest digest = sha256(std::as_bytes(std::span(hashed)));
  return prefix + std::string(reinterpret_cast<const char*>(digest.data()), digest.size()) +
         header + bytes.substr(48 + n_before);
}

std::string header_of(const std::string& bytes) {
  uint32_t n = 0;
  std::memcpy(&n, bytes.data() + 12, sizeof n);
  return bytes.substr(48, n);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a restored session goes on with the bits of the saved one, windows or not") {
  const std::vector<int32_t> ids = random_ids(kContext, 21);
  for (const std::vector<int>& windows : {std::vector<int>{0}, {40}, {0, 40, 70}, {0, -3}, {-4}}) {
    for (const size_t n : {size_t{1}, size_t{31}, size_t{32}, size_t{33}, size_t{333}}) {
      Fixture at(windows);
      const auto saved = at.fed(std::span(ids).first(n));
      REQUIRE(saved->save(at.path.text, kIdentity, "a note", 2).is_ok());
      const auto file = SessionFile::open(at.path.text);
      REQUIRE(file.is_ok());
      CHECK(file.value()->note() == "a note");
      const auto restored = at.fresh();
      REQUIRE(restored->restore(*file.value(), kIdentity, 2).is_ok());
      CHECK(copy(restored->logits().value()) == copy(saved->logits().value()));
      CHECK(restored->stats().kv_bytes == saved->stats().kv_bytes);
      CHECK(restored->n_recompute() == 0);
      CHECK(std::ranges::equal(restored->token_ids(), std::span(ids).first(n)));
      at.model.step_rows.clear();
      at.feed(*restored, std::span(ids).subspan(n));
      CHECK(copy(restored->logits().value()) == at.model.expected(ids));
      int n_rows = 0;
      for (const int n_step : at.model.step_rows) n_rows += n_step;
      CHECK(n_rows == static_cast<int>(ids.size() - n));
    }
  }
}

TEST_CASE("what a session lacks, its restored copy lacks: logits, KV, tokens") {
  Fixture at({0, 40});
  const std::vector<int32_t> ids = random_ids(300, 22);
  const auto saved = at.fed(ids);
  const auto restored = [&] {
    REQUIRE(saved->save(at.path.text, kIdentity, "", 1).is_ok());
    std::unique_ptr<Session> session = at.fresh();
    REQUIRE(session->restore(*SessionFile::open(at.path.text).value(), kIdentity, 1).is_ok());
    CHECK(session->n_recompute() == saved->n_recompute());
    CHECK_FALSE(session->logits().is_ok());
    return session;
  };
  REQUIRE(saved->rewind(290).is_ok());  // no logits
  auto session = restored();
  at.feed(*session, std::span(ids).subspan(290));
  CHECK(copy(session->logits().value()) == at.model.expected(ids));
  REQUIRE(saved->rewind(60).is_ok());  // no KV
  CHECK(saved->n_recompute() == 60);
  session = restored();
  at.feed(*session, std::span(ids).subspan(60));
  CHECK(copy(session->logits().value()) == at.model.expected(ids));
  REQUIRE(saved->rewind(0).is_ok());  // nothing
  session = restored();
  at.feed(*session, ids);
  CHECK(copy(session->logits().value()) == at.model.expected(ids));
}

TEST_CASE("a step that failed leaves nothing in the file") {
  Fixture at({0, 40});
  const std::vector<int32_t> ids = random_ids(200, 23);
  const auto saved = at.fed(std::span(ids).first(60));
  REQUIRE(saved->append(std::span(ids).subspan(60)).is_ok());
  at.model.n_steps_until_failure = 0;
  CHECK_FALSE(saved->run(kNoBudgetMs, nullptr).is_ok());
  CHECK(saved->save(at.path.text, kIdentity, "", 1).code() == Code::kInvalidArgument);
  REQUIRE(saved->rewind(60).is_ok());
  REQUIRE(saved->save(at.path.text, kIdentity, "", 1).is_ok());
  const auto restored = at.fresh();
  REQUIRE(restored->restore(*SessionFile::open(at.path.text).value(), kIdentity, 1).is_ok());
  at.feed(*restored, std::span(ids).subspan(60));
  CHECK(copy(restored->logits().value()) == at.model.expected(ids));
}

TEST_CASE("a session of something else is refused by the name of what differs") {
  Fixture at;
  const auto saved = at.fed(random_ids(50, 24));
  REQUIRE(saved->save(at.path.text, kIdentity, "", 1).is_ok());
  const auto file = SessionFile::open(at.path.text).take();
  const auto session = at.fresh();
  const auto refused = [&](std::string SessionIdentity::* text, const std::string& name) {
    SessionIdentity other = kIdentity;
    other.*text = "other";
    const Status status = session->restore(*file, other, 1);
    CHECK(status.code() == Code::kSessionMismatch);
    CHECK(status.message().find(name) != std::string::npos);
    CHECK(session->n_tokens() == 0);
    CHECK(session->stats().kv_bytes == 0);
  };
  refused(&SessionIdentity::model, "another model");
  refused(&SessionIdentity::spec, "another spec");
  refused(&SessionIdentity::tokenizer, "another tokenizer");
  refused(&SessionIdentity::kv_format, "another KV format ('F16', here 'other')");
  refused(&SessionIdentity::kv_layout, "another layout");
  refused(&SessionIdentity::rope, "rotary");
  refused(&SessionIdentity::adapter, "another adapter (none, here 'other')");
  CHECK(at.fresh(49)->restore(*file, kIdentity, 1).code() == Code::kContextOverflow);
  CHECK(saved->restore(*file, kIdentity, 1).code() == Code::kInvalidArgument);
  CHECK(saved->n_tokens() == 50);
  REQUIRE(session->restore(*file, kIdentity, 1).is_ok());
}

TEST_CASE("a file cut anywhere, or with bytes behind its end, is refused") {
  Fixture at;
  REQUIRE(at.fed(random_ids(40, 25))->save(at.path.text, kIdentity, "n", 1).is_ok());
  const std::string whole = content(at.path.text);
  REQUIRE(open_bytes(whole).is_ok());
  for (size_t n = 0; n < whole.size(); ++n) {
    const Code code = open_bytes(whole.substr(0, n)).status().code();
    REQUIRE(code == (n < 8 ? Code::kSessionInvalid : Code::kSessionTruncated));
  }
  CHECK(open_bytes(whole + "x").status().code() == Code::kTrailingBytes);
}

TEST_CASE("10,000 files with changed bytes are refused, and what runs is not affected") {
  Fixture at({0, 40});
  const std::vector<int32_t> ids = random_ids(300, 26);
  const auto saved = at.fed(std::span(ids).first(200));
  REQUIRE(saved->save(at.path.text, kIdentity, "a note", 1).is_ok());
  const std::string whole = content(at.path.text);
  const auto target = at.fresh();
  std::mt19937 random(7);
  for (int i = 0; i < 10000; ++i) {
    std::string bytes = whole;
    // The head of the file as often as its pages.
    const size_t n_range = i % 2 == 0 ? bytes.size() : 1500;
    const size_t n_changes = 1 + random() % 3;
    for (size_t change = 0; change < n_changes; ++change) {
      const size_t position = random() % n_range;
      bytes[position] = static_cast<char>(bytes[position] ^ (1 + random() % 255));
    }
    if (bytes == whole) continue;  // one change undid another
    const auto file = open_bytes(bytes);
    Status status = file.status();
    if (status.is_ok()) status = target->restore(*file.value(), kIdentity, 1);
    REQUIRE_FALSE(status.is_ok());
    REQUIRE(code_class(status.code()) != "");
    REQUIRE(target->n_tokens() == 0);
    REQUIRE(target->stats().kv_bytes == 0);
  }
  at.feed(*saved, std::span(ids).subspan(200));
  CHECK(copy(saved->logits().value()) == at.model.expected(ids));
  at.feed(*target, ids);
  CHECK(copy(target->logits().value()) == at.model.expected(ids));
}

TEST_CASE("a header that lies, under a digest that fits, is refused") {
  Fixture at({0, 40});
  REQUIRE(at.fed(random_ids(300, 27))->save(at.path.text, kIdentity, "", 1).is_ok());
  const std::string whole = content(at.path.text);
  const std::string header = header_of(whole);
  REQUIRE(open_bytes(with_header(whole, header)).is_ok());
  const std::string page = "\"page_bytes\":" + std::to_string(test::kPageBytes);
  const std::string first_page = "\"first_page_bytes\":";
  const std::vector<std::pair<std::string, std::string>> lies = {
      {"\"n_kv_tokens\":300", "\"n_kv_tokens\":-1"},
      {"\"n_kv_tokens\":300", "\"n_kv_tokens\":2147483647"},
      {"\"n_kv_tokens\":300", "\"n_kv_tokens\":301"},
      {"\"n_kv_tokens\":300", "\"n_kv_tokens\":268"},
      {"\"n_bytes\":1200", "\"n_bytes\":9223372036854775807"},
      {"\"n_bytes\":1200", "\"n_bytes\":-4"},
      {"\"n_bytes\":1200", "\"n_bytes\":1199"},
      {"\"first_page\":0", "\"first_page\":1"},
      {"\"n_pages\":19", "\"n_pages\":2147483647"},
      {"\"n_pages\":19", "\"n_pages\":18"},
      {page, "\"page_bytes\":0"},
      {page, "\"page_bytes\":2147483647"},
      {page, "\"page_bytes\":1e3"},
      {"\"window\":40", "\"window\":290"},
      {"\"model\":\"0a1b\",", ""},
      {"\"model\":", "\"more\":\"\",\"model\":"},
      {"\"xxh64\":\"", "\"xxh64\":\"0x"},
      {"\"groups\":[", "\"groups\":[1,"},
      {"{\"identity\"", "[\"identity\""},
      {"\"n_kv_tokens\":300", "\"n_kv_tokens\":300,\"n_kv_tokens\":300"},
  };
  for (const auto& [from, to] : lies) {
    CAPTURE(to);
    CHECK_FALSE(open_bytes(with_header(whole, replaced(header, from, to))).is_ok());
  }
  // What only the model can tell.
  const auto session = at.fresh();
  for (const auto& [from, to] :
       {std::pair{std::string("\"window\":40"), std::string("\"window\":41")},
        std::pair{first_page + std::to_string(test::kPageBytes),
                  first_page + std::to_string(test::kPageBytes - 1)}}) {
    std::string forged = with_header(whole, replaced(header, from, to));
    if (from != "\"window\":40") forged.resize(forged.size() - kFirstPages);
    const auto file = open_bytes(forged);
    REQUIRE(file.is_ok());
    CHECK(session->restore(*file.value(), kIdentity, 1).code() == Code::kSessionInvalid);
    CHECK(session->n_tokens() == 0);
  }
}

}  // namespace edge
