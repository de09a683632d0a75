// Asked between the operations of a long computation; true ends it with kCancelled. Empty: never.
#pragma once

#include <functional>

namespace edge {

using StopCheck = std::function<bool()>;

}  // namespace edge
