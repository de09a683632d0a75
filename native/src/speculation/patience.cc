#include "speculation/patience.h"

#include <algorithm>

namespace edge {

namespace {

// Plain steps; what was won long ago is no reason to lose now.
constexpr double kMostAhead = 4.0;
// An echo that is none shows at once.
constexpr double kTrust = 0.6;

}  // namespace

void Patience::count(double won) {
  balance_ = std::min(balance_ + won, kMostAhead);
  if (balance_ >= kMostAhead) {
    next_rest_ = kFirstRest;
    echo_ = kFirstEcho;
    is_woken_ = false;
  }
  if (balance_ >= -kMostBehind) return;
  const double needed = std::min(-balance_ / kMostBehind * kFirstRest, double{kLongestRest});
  rest_ = std::max(next_rest_, static_cast<int>(needed));
  balance_ = 0.0;
  next_rest_ = std::min(2 * next_rest_, kLongestRest);
  if (is_woken_) echo_ = std::min(2 * echo_, kLongestEcho);
  is_woken_ = false;
}

bool Patience::rest_on(int n_echoed) {
  if (n_echoed < echo_) {
    if (rest_ > 0) --rest_;
    return rest_ > 0;
  }
  rest_ = 0;
  balance_ = kTrust - kMostBehind;
  is_woken_ = true;
  return false;
}

}  // namespace edge
