#include "mutations.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/sha256.h"
#include "format/edge_file.h"
#include "rng.h"

namespace edge::fuzz {

namespace {

constexpr size_t kMaxMutatedTensors = 64;  // for edits of single tensors
constexpr size_t kMaxGrowth = 1 << 20;     // of a mutant beyond the seed

std::string number(uint64_t n) { return std::to_string(n); }

class Mutator {
 public:
  Mutator(std::string_view seed, uint64_t rng_seed, const Visit& visit)
      : seed_(seed), visit_(visit), rng_(rng_seed) {
    auto buffer = PageBuffer::allocate(seed.size() + kMaxGrowth);
    if (!buffer.is_ok()) return;
    buffer_ = buffer.take();
    std::memcpy(bytes(), seed_.data(), seed_.size());
    auto file = EdgeFile::from_bytes({buffer_.data(), seed_.size()}, "seed");
    if (!file.is_ok()) return;
    file_ = file.value();
    data_start_ = static_cast<size_t>(file_->data_start());
    header_ = seed_.substr(8, data_start_ - 8);
    header_.erase(header_.find_last_not_of(' ') + 1);
  }

  bool is_ready() const { return file_ != nullptr; }

  // Of the blanks behind the header, two thirds of a small file's, every 64th.
  void header_bytes() {
    for (size_t i = 0; i < data_start_; ++i) {
      const bool is_blank = i >= 8 + header_.size();
      if (is_blank && i % 64 != 0 && i + 1 != data_start_) continue;
      for (const int value : {0x00, 0x01, 0x7F, 0x80, 0xFF}) {
        const char byte = static_cast<char>(value);
        if (seed_[i] == byte) continue;
        bytes()[i] = byte;
        visit("header byte " + number(i) + " = " + number(static_cast<uint64_t>(value)),
              seed_.size(), Expect::kRefused);
        bytes()[i] = seed_[i];
      }
    }
  }

  void lengths() {
    for (size_t n = 0; n < data_start_; n += 512) cut(n);
    const size_t n_data = seed_.size() - data_start_;
    for (size_t i = 0; i < 64; ++i) cut(data_start_ + n_data * i / 64);
    for (size_t n = 1; n <= 8; ++n) cut(seed_.size() - n);
    for (const size_t more : {size_t{1}, size_t{64}, size_t{16384}, kMaxGrowth}) {
      std::memset(bytes() + seed_.size(), 0, more);
      visit("grown by " + number(more), seed_.size() + more, Expect::kRefused);
    }
    for (const uint64_t length :
         {uint64_t{0}, uint64_t{1}, uint64_t{header_.size()}, uint64_t{data_start_ - 9},
          uint64_t{data_start_}, uint64_t{seed_.size()}, kMaxHeaderBytes, kMaxHeaderBytes + 1,
          uint64_t{1} << 63, UINT64_MAX - 8, UINT64_MAX}) {
      for (size_t i = 0; i < 8; ++i) bytes()[i] = static_cast<char>(length >> (8 * i));
      visit("header length " + number(length), seed_.size(), Expect::kRefused);
      std::memcpy(bytes(), seed_.data(), 8);
    }
  }

  // Entries and rows of single tensors, resealed.
  void tensors() {
    const auto& all = file_->tensors();
    const size_t step = std::max<size_t>(1, all.size() / kMaxMutatedTensors);
    for (size_t i = 0; i < all.size(); i += step) {
      const TensorEntry& t = all[i];
      const uint64_t end = t.offset + stored_bytes(i);
      edit(t.name + " overlaps", range(t.offset, end), range(t.offset + 64, end + 64));
      edit(t.name + " reversed", range(t.offset, end), range(end, t.offset));
      edit(t.name + " short", range(t.offset, end), range(t.offset, end - 64));
      edit(t.name + " far away", range(t.offset, end),
           range(t.offset + (1ull << 47), end + (1ull << 47)));
      edit(t.name + " beyond", range(t.offset, end), range(t.offset, UINT64_MAX));
      edit(t.name + " stored shape", entry(i, "U8", stored_bytes(i)),
           entry(i, "U8", stored_bytes(i) + 64));
      edit(t.name + " dtype", entry(i, "U8", stored_bytes(i)), entry(i, "F32", stored_bytes(i)));
      edit(t.name + " twice", "\"" + t.name + "\":{", "\"" + t.name + "\":{},\"" + t.name + "\":{");
      edit(t.name + " renamed", "\"" + t.name + "\":{", "\"" + t.name + "x\":{");
      shapes(t);
      if (i + 1 < all.size() && stored_bytes(i) != stored_bytes(i + 1)) swap_offsets(i);
    }
  }

  void data_bits(uint64_t n_random) {
    const size_t n_data = seed_.size() - data_start_;
    for (uint64_t n = 0; n < n_random; ++n) {
      const size_t at = data_start_ + rng_.below(n_data);
      const size_t bit = rng_.below(8);
      bytes()[at] = static_cast<char>(bytes()[at] ^ (1 << bit));
      visit("data byte " + number(at) + " bit " + number(bit), seed_.size(), Expect::kRefused);
      bytes()[at] = seed_[at];
    }
  }

  // A few bytes of the header text replaced, removed or repeated; resealed every second time.
  void random_headers(uint64_t n_random) {
    for (uint64_t n = 0; n < n_random; ++n) {
      std::string text = header_;
      for (size_t edits = 1 + rng_.below(4); edits > 0; --edits) {
        const size_t at = rng_.below(text.size());
        const size_t length = std::min(1 + rng_.below(16), text.size() - at);
        switch (rng_.below(4)) {
          case 0:
            text[at] = static_cast<char>(rng_.below(256));
            break;
          case 1:
            text[at] = "0123456789\",:[]{}\\-e."[rng_.below(21)];
            break;
          case 2:
            text.erase(at, std::min(length, text.size() - 1));
            break;
          default:
            text.insert(at, text.substr(at, length));
        }
      }
      if (text != header_) resealed("random header " + number(n), text, Expect::kTyped);
    }
  }

 private:
  char* bytes() { return reinterpret_cast<char*>(buffer_.data()); }

  void visit(const std::string& what, size_t n_bytes, Expect expect) {
    visit_(what, {buffer_.data(), n_bytes}, expect);
  }

  void cut(size_t n_bytes) { visit("cut to " + number(n_bytes), n_bytes, Expect::kRefused); }

  uint64_t stored_bytes(size_t i) const {
    return (file_->tensors()[i].tensor.n_bytes + 63) / 64 * 64;
  }

  static std::string range(uint64_t begin, uint64_t end) {
    return "\"data_offsets\":[" + number(begin) + "," + number(end) + "]";
  }

  std::string entry(size_t i, std::string_view dtype, uint64_t n_bytes) const {
    return "\"" + file_->tensors()[i].name + "\":{\"dtype\":\"" + std::string(dtype) +
           "\",\"shape\":[" + number(n_bytes) + "]";
  }

  // Logical shapes and formats that no longer fit the stored bytes.
  void shapes(const TensorEntry& t) {
    const uint64_t rows = static_cast<uint64_t>(t.tensor.n_rows);
    const uint64_t cols = static_cast<uint64_t>(t.tensor.n_cols);
    const std::string start = "\\\"" + t.name + "\\\":{\\\"role\\\":\\\"" + t.role +
                              "\\\",\\\"format\\\":\\\"" +
                              std::string(format_name(t.tensor.format)) + "\\\",\\\"shape\\\":[";
    if (tile_bytes(t.tensor.format) == 0) {
      for (const uint64_t n : {uint64_t{0}, cols + 64, cols * 1024, uint64_t{1} << 62}) {
        edit(t.name + " shape", start + number(cols) + "]", start + number(n) + "]");
      }
      edit(t.name + " dims", start + number(cols) + "]", start + number(cols) + ",1]");
      return;
    }
    const std::string shape = start + number(rows) + "," + number(cols) + "]";
    const auto reshaped = [&](uint64_t r, uint64_t c) {
      edit(t.name + " shape", shape, start + number(r) + "," + number(c) + "]");
    };
    reshaped(rows + 16, cols);
    reshaped(rows, cols + 32);
    reshaped(0, cols);
    reshaped(rows, uint64_t{1} << 48);
    reshaped(uint64_t{1} << 48, uint64_t{1} << 48);
    reshaped(uint64_t{1} << 62, 4);
    edit(t.name + " dims", shape, start + number(rows * cols) + "]");
    edit(t.name + " act", shape + ",\\\"act\\\":\\\"", shape + ",\\\"act\\\":\\\"x");
  }

  void swap_offsets(size_t i) {
    const auto& a = file_->tensors()[i];
    const auto& b = file_->tensors()[i + 1];
    const std::string range_a = range(a.offset, a.offset + stored_bytes(i));
    const std::string range_b = range(b.offset, b.offset + stored_bytes(i + 1));
    std::string text = header_;
    if (!replace_once(text, range_a, "@")) return;
    if (!replace_once(text, range_b, range_a)) return;
    replace_once(text, "@", range_b);
    resealed(a.name + " swapped with " + b.name, text, Expect::kRefused);
  }

  static bool replace_once(std::string& text, std::string_view find, std::string_view with) {
    const size_t at = text.find(find);
    if (at == std::string::npos) return false;
    text.replace(at, find.size(), with);
    return true;
  }

  void edit(const std::string& what, std::string_view find, std::string_view with) {
    std::string text = header_;
    if (replace_once(text, find, with)) resealed(what, text, Expect::kRefused);
  }

  void resealed(const std::string& what, const std::string& text, Expect expect) {
    const size_t start = std::max(round_up_to_page(8 + text.size()), data_start_);
    const std::string blob = seal(text, start);
    const size_t n_data = seed_.size() - data_start_;
    if (start + n_data > buffer_.size_bytes()) return;
    std::memcpy(bytes(), blob.data(), start);
    std::memcpy(bytes() + start, seed_.data() + data_start_, n_data);
    visit(what, start + n_data, expect);
    std::memcpy(bytes(), seed_.data(), seed_.size());
  }

  std::string_view seed_;
  const Visit& visit_;
  Rng rng_;
  PageBuffer buffer_;
  std::shared_ptr<const EdgeFile> file_;  // views into buffer_: names and shapes are copies
  size_t data_start_ = 0;
  std::string header_;  // without padding
};

}  // namespace

void for_each_mutation(std::string_view seed, uint64_t n_random, uint64_t rng_seed,
                       const Visit& visit) {
  Mutator mutator(seed, rng_seed, visit);
  if (!mutator.is_ready()) return;
  mutator.header_bytes();
  mutator.lengths();
  mutator.tensors();
  mutator.data_bits(n_random);
  mutator.random_headers(n_random);
}

std::string seal(std::string header, size_t data_start) {
  header.resize(data_start - 8, ' ');
  std::string blob(8, '\0');
  for (size_t i = 0; i < 8; ++i) blob[i] = static_cast<char>(uint64_t{header.size()} >> (8 * i));
  blob += header;
  constexpr std::string_view kField = "\"edgellm.header_sha256\":\"";
  const size_t at = blob.find(kField);
  if (at == std::string::npos || at + kField.size() + 64 > blob.size()) return blob;
  blob.replace(at + kField.size(), 64, std::string(64, '0'));
  return blob.replace(at + kField.size(), 64,
                      to_hex(sha256(std::as_bytes(std::span<const char>(blob)))));
}

size_t round_up_to_page(size_t n_bytes) {
  return (n_bytes + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
}

}  // namespace edge::fuzz
