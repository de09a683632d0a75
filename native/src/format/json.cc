#include "format/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>
#ifndef __cpp_lib_to_chars
#include <locale>
#include <sstream>
#endif

namespace edge {

namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxValues = 1u << 20;  // bounds memory: a value takes about 128 bytes

// Length of the well-formed UTF-8 sequence at the start of `text` (Unicode 15, table 3-7); 0 if
// bad.
size_t utf8_sequence(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t n = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < n) return 0;
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < n; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return n;
}

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t b) { out += static_cast<char>(b); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 63));
    put(0x80 | (c & 63));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 63));
    put(0x80 | (c >> 6 & 63));
    put(0x80 | (c & 63));
  }
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool parse_double(std::string_view text, double& value) {
#ifdef __cpp_lib_to_chars
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
#else  // older libc++; the classic locale keeps the decimal point a point
  std::istringstream stream{std::string(text)};
  stream.imbue(std::locale::classic());
  stream >> value;
  return !stream.fail() && std::isfinite(value);
#endif
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr size_t kMaxShown = 80;
  std::string shown = "'";
  for (const char c : text.substr(0, kMaxShown)) {
    shown += c >= 0x20 && c < 0x7F ? c : '?';
  }
  return shown + (text.size() > kMaxShown ? "...'" : "'");
}

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Status document(Json& value) {
    skip_blanks();
    EDGE_RETURN_IF_ERROR(parse_value(value, 0));
    skip_blanks();
    return at_ == text_.size() ? Status() : syntax("text after the end of the document");
  }

 private:
  Status parse_value(Json& value, int depth) {
    if (++n_values_ > kMaxValues) {
      return {Code::kJsonTooLarge, "more than " + std::to_string(kMaxValues) + " values"};
    }
    if (at_ == text_.size()) return syntax("unexpected end");
    switch (text_[at_]) {
      case '{':
        return parse_object(value, depth);
      case '[':
        return parse_array(value, depth);
      case '"':
        value.kind_ = Json::Kind::kString;
        return parse_string(value.string_);
      case 't':
        value.kind_ = Json::Kind::kBool;
        value.bool_ = true;
        return parse_word("true");
      case 'f':
        value.kind_ = Json::Kind::kBool;
        return parse_word("false");
      case 'n':
        return parse_word("null");
      default:
        return parse_number(value);
    }
  }

  Status parse_object(Json& value, int depth) {
    EDGE_RETURN_IF_ERROR(check_depth(depth));
    value.kind_ = Json::Kind::kObject;
    ++at_;
    skip_blanks();
    if (take('}')) return {};
    while (true) {
      if (at_ == text_.size() || text_[at_] != '"') return syntax("expected a key");
      auto& [key, member] = value.members_.emplace_back();
      EDGE_RETURN_IF_ERROR(parse_string(key));
      skip_blanks();
      if (!take(':')) return syntax("expected ':'");
      skip_blanks();
      EDGE_RETURN_IF_ERROR(parse_value(member, depth + 1));
      skip_blanks();
      if (take('}')) return check_unique(value);
      if (!take(',')) return syntax("expected ',' or '}'");
      skip_blanks();
    }
  }

  Status parse_array(Json& value, int depth) {
    EDGE_RETURN_IF_ERROR(check_depth(depth));
    value.kind_ = Json::Kind::kArray;
    ++at_;
    skip_blanks();
    if (take(']')) return {};
    while (true) {
      EDGE_RETURN_IF_ERROR(parse_value(value.items_.emplace_back(), depth + 1));
      skip_blanks();
      if (take(']')) return {};
      if (!take(',')) return syntax("expected ',' or ']'");
      skip_blanks();
    }
  }

  Status parse_string(std::string& out) {
    ++at_;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return {};
      }
      if (c == '\\') {
        EDGE_RETURN_IF_ERROR(parse_escape(out));
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20) return syntax("control character in a string");
      const size_t n = utf8_sequence(text_.substr(at_));
      if (n == 0) return syntax("not UTF-8");
      out.append(text_, at_, n);
      at_ += n;
    }
    return syntax("string without an end");
  }

  Status parse_escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    if (at_ + 1 >= text_.size()) return syntax("string without an end");
    const char name = text_[at_ + 1];
    if (const size_t i = kNames.find(name); i != kNames.npos) {
      out += kValues[i];
      at_ += 2;
      return {};
    }
    uint32_t c = 0;
    if (name != 'u' || !parse_hex4(c)) return syntax("unknown escape");
    if (c >= 0xD800 && c < 0xDC00) {
      uint32_t low = 0;
      if (!parse_hex4(low) || low < 0xDC00 || low > 0xDFFF) return syntax("lone surrogate");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    } else if (c >= 0xDC00 && c < 0xE000) {
      return syntax("lone surrogate");
    }
    append_utf8(c, out);
    return {};
  }

  // "\uXXXX" at at_; moves past it.
  bool parse_hex4(uint32_t& c) {
    if (text_.size() - at_ < 6 || text_[at_] != '\\' || text_[at_ + 1] != 'u') return false;
    const char* first = text_.data() + at_ + 2;
    const auto [end, error] = std::from_chars(first, first + 4, c, 16);
    if (error != std::errc() || end != first + 4) return false;
    at_ += 6;
    return true;
  }

  Status parse_number(Json& value) {
    const size_t start = at_;
    take('-');
    if (at_ == text_.size() || !is_digit(text_[at_])) return syntax("expected a value");
    if (!take('0')) skip_digits();
    const bool is_int = at_ == text_.size() || (text_[at_] != '.' && (text_[at_] | 32) != 'e');
    if (take('.') && !skip_digits()) return syntax("expected a digit");
    if (at_ < text_.size() && (text_[at_] | 32) == 'e') {
      ++at_;
      if (!take('+')) take('-');
      if (!skip_digits()) return syntax("expected a digit");
    }
    const std::string_view number = text_.substr(start, at_ - start);
    if (is_int) {
      value.kind_ = Json::Kind::kInt;
      const auto [end, error] =
          std::from_chars(number.data(), number.data() + number.size(), value.int_);
      return error == std::errc() ? Status() : syntax("integer does not fit 64 bits");
    }
    value.kind_ = Json::Kind::kDouble;
    return parse_double(number, value.double_) ? Status() : syntax("number out of range");
  }

  Status parse_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return syntax("expected a value");
    at_ += word.size();
    return {};
  }

  Status check_unique(const Json& object) {
    const auto& members = object.members_;
    if (members.size() < 2) return {};
    std::vector<std::string_view> keys(members.size());
    std::transform(members.begin(), members.end(), keys.begin(),
                   [](const auto& member) { return std::string_view(member.first); });
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice == keys.end()) return {};
    return {Code::kJsonDuplicateKey, "key " + printable(*twice) + " appears twice"};
  }

  Status check_depth(int depth) const {
    if (depth < kMaxDepth) return {};
    return {Code::kJsonDepth, "nested deeper than " + std::to_string(kMaxDepth)};
  }

  Status syntax(std::string_view what) const {
    return {Code::kJsonSyntax, std::string(what) + " at byte " + std::to_string(at_)};
  }

  void skip_blanks() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  bool skip_digits() {
    const size_t start = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    return at_ > start;
  }

  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t n_values_ = 0;
};

namespace {

std::string at_key(std::string_view where, std::string_view key) {
  return std::string(where) + ": " + printable(key);
}

}  // namespace

Result<Json> Json::parse(std::string_view text) {
  Json value;
  EDGE_RETURN_IF_ERROR(JsonParser(text).document(value));
  return value;
}

const Json* Json::find(std::string_view key) const {
  for (const auto& [name, value] : members_) {
    if (name == key) return &value;
  }
  return nullptr;
}

Result<const Json*> Json::get(std::string_view key, std::string_view where) const {
  if (kind_ != Kind::kObject) return {Code::kJsonType, std::string(where) + ": not an object"};
  if (const Json* value = find(key)) return value;
  return {Code::kJsonMissingKey, at_key(where, key) + " is missing"};
}

Result<const Json*> Json::get_kind(std::string_view key, std::string_view where, Kind kind,
                                   std::string_view kind_name) const {
  EDGE_ASSIGN_OR_RETURN(const Json* value, get(key, where));
  if (value->kind_ == kind) return value;
  return {Code::kJsonType, at_key(where, key) + " is not " + std::string(kind_name)};
}

Result<int64_t> Json::get_int(std::string_view key, std::string_view where) const {
  EDGE_ASSIGN_OR_RETURN(const Json* value, get_kind(key, where, Kind::kInt, "an integer"));
  return value->int_;
}

Result<double> Json::get_double(std::string_view key, std::string_view where) const {
  EDGE_ASSIGN_OR_RETURN(const Json* value, get(key, where));
  if (value->kind_ == Kind::kDouble || value->kind_ == Kind::kInt) return value->as_double();
  return {Code::kJsonType, at_key(where, key) + " is not a number"};
}

Result<bool> Json::get_bool(std::string_view key, std::string_view where) const {
  EDGE_ASSIGN_OR_RETURN(const Json* value, get_kind(key, where, Kind::kBool, "true or false"));
  return value->bool_;
}

Result<std::string> Json::get_string(std::string_view key, std::string_view where) const {
  EDGE_ASSIGN_OR_RETURN(const Json* value, get_kind(key, where, Kind::kString, "a string"));
  return value->string_;
}

Result<const Json*> Json::get_array(std::string_view key, std::string_view where) const {
  return get_kind(key, where, Kind::kArray, "an array");
}

Result<const Json*> Json::get_object(std::string_view key, std::string_view where) const {
  return get_kind(key, where, Kind::kObject, "an object");
}

Status Json::only_keys(std::initializer_list<std::string_view> known,
                       std::string_view where) const {
  if (kind_ != Kind::kObject) return {Code::kJsonType, std::string(where) + ": not an object"};
  for (const auto& [name, value] : members_) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return {Code::kJsonUnknownKey, at_key(where, name) + " is not a known key"};
    }
  }
  return {};
}

}  // namespace edge
