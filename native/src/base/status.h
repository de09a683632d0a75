// Status and Result: how every layer below api/ reports failure. No exceptions, no aborts.
//
// A Status is one pointer wide and free to copy when ok. A failed Status owns its code and a
// message that says what is wrong, where ("tensor 'layers.3.ffn_up': ...") and, where it can, what
// to do.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace edge {

enum class Code : uint16_t {
  kOk = 0,
#define EDGE_ERROR(name, py_class, text) name,
#include "base/errors.inc"
#undef EDGE_ERROR
};

// The stable snake_case name of a code ("leaf_hash"); "ok" for kOk.
std::string_view code_name(Code code);
// The Python class that the binding raises for a code ("IntegrityError"); "" for kOk.
std::string_view code_class(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string message)
      : rep_(std::make_shared<const Rep>(Rep{code, std::move(message)})) {}

  static Status ok() { return {}; }
  bool is_ok() const { return rep_ == nullptr; }
  Code code() const { return rep_ ? rep_->code : Code::kOk; }
  const std::string& message() const {
    static const std::string kEmpty;
    return rep_ ? rep_->message : kEmpty;
  }
  // The same failure with "where: " put in front of its message.
  Status with_context(std::string_view where) const {
    return is_ok() ? *this : Status(code(), std::string(where) + ": " + message());
  }

 private:
  struct Rep {
    Code code;
    std::string message;
  };
  std::shared_ptr<const Rep> rep_;
};

// Either a T or a failed Status.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: status must not be ok
  Result(Code code, std::string message) : status_(code, std::move(message)) {}

  bool is_ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& take() { return std::move(*value_); }

 private:
  std::optional<T> value_;
  Status status_;
};

#define EDGE_CONCAT_INNER(a, b) a##b
#define EDGE_CONCAT(a, b) EDGE_CONCAT_INNER(a, b)

// Returns from the enclosing function if `expr` (a Status) failed.
#define EDGE_RETURN_IF_ERROR(expr)                                                        \
  do {                                                                                    \
    if (::edge::Status edge_status_ = (expr); !edge_status_.is_ok()) return edge_status_; \
  } while (0)

// `EDGE_ASSIGN_OR_RETURN(auto x, f())`: declares x from a Result, or returns its Status.
#define EDGE_ASSIGN_OR_RETURN(decl, expr) \
  EDGE_ASSIGN_OR_RETURN_INNER(EDGE_CONCAT(edge_result_, __LINE__), decl, expr)
#define EDGE_ASSIGN_OR_RETURN_INNER(result, decl, expr) \
  auto result = (expr);                                 \
  if (!result.is_ok()) return result.status();          \
  decl = result.take()

}  // namespace edge
