#include "base/status.h"

namespace edge {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
#define EDGE_ERROR(name, py_class, text) \
  case Code::name:                       \
    return text;
#include "base/errors.inc"
#undef EDGE_ERROR
  }
  return "unknown";
}

std::string_view code_class(Code code) {
  switch (code) {
    case Code::kOk:
      return "";
#define EDGE_ERROR(name, py_class, text) \
  case Code::name:                       \
    return #py_class;
#include "base/errors.inc"
#undef EDGE_ERROR
  }
  return "EdgeError";
}

}  // namespace edge
