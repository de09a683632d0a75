// A strict JSON reader (RFC 8259): UTF-8 checked, duplicate keys refused, depth <= 32, numbers kept
// as int64 where they are integers and as finite doubles otherwise, at most 2^20 values. For
// headers and specs: small, hostile input; fuzzed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace edge {

class Json {
 public:
  enum class Kind : uint8_t { kNull, kBool, kInt, kDouble, kString, kArray, kObject };

  // Parses one complete document; trailing bytes other than white space are an error.
  static Result<Json> parse(std::string_view text);

  Kind kind() const { return kind_; }
  // Typed access by key of an object. `where` goes into the message: "layers[3]".
  Result<int64_t> get_int(std::string_view key, std::string_view where) const;
  Result<double> get_double(std::string_view key, std::string_view where) const;  // accepts ints
  Result<bool> get_bool(std::string_view key, std::string_view where) const;
  Result<std::string> get_string(std::string_view key, std::string_view where) const;
  Result<const Json*> get_array(std::string_view key, std::string_view where) const;
  Result<const Json*> get_object(std::string_view key, std::string_view where) const;
  const Json* find(std::string_view key) const;  // nullptr if absent or not an object

  // kJsonUnknownKey if the object has a key that is not in `known`.
  Status only_keys(std::initializer_list<std::string_view> known, std::string_view where) const;

  const std::vector<Json>& items() const { return items_; }                              // kArray
  const std::vector<std::pair<std::string, Json>>& members() const { return members_; }  // kObject
  bool as_bool() const { return bool_; }
  int64_t as_int() const { return int_; }
  double as_double() const { return kind_ == Kind::kInt ? static_cast<double>(int_) : double_; }
  const std::string& as_string() const { return string_; }

 private:
  friend class JsonParser;
  Result<const Json*> get(std::string_view key, std::string_view where) const;
  Result<const Json*> get_kind(std::string_view key, std::string_view where, Kind kind,
                               std::string_view kind_name) const;
  Kind kind_ = Kind::kNull;
  bool bool_ = false;
  int64_t int_ = 0;
  double double_ = 0;
  std::string string_;
  std::vector<Json> items_;
  std::vector<std::pair<std::string, Json>> members_;
};

// `text` quoted for an error message: at most 80 bytes of it, everything but printable ASCII as
// '?'.
std::string printable(std::string_view text);

}  // namespace edge
