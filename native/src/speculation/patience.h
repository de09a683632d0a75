// Patience: whether a sequence goes on drafting. What drafting won or lost, in plain steps, is its
// balance. Behind, it rests, longer each time, unless the text says again what was said before.
// Deterministic.
#pragma once

#include <algorithm>
#include <cstdint>

namespace edge {

class Patience {
 public:
  static constexpr double kMostBehind = 1.0;  // plain steps that drafting may lose before it rests
  static constexpr int kFirstRest = 64;       // steps; twice as many each time, ...
  static constexpr int kLongestRest = 4096;   // ... up to so many
  // Tokens of an echo that end a rest; twice as many each time one promised too much.
  static constexpr int kFirstEcho = 8;
  static constexpr int kLongestEcho = 128;

  bool is_resting() const { return rest_ > 0; }
  // It rests and has lost again and again, so the next text is not to begin with drafts.
  bool has_given_up() const { return rest_ > 0 && next_rest_ > 4 * kFirstRest; }
  // Another text, which neither loses what those before have won nor pays for what they lost.
  void begin_text() {
    if (has_given_up()) return;
    balance_ = 0.0;
    rest_ = 0;
  }
  // Nothing but an echo is to begin with drafts, however long that takes.
  void await_echo() { rest_ = kLongestRest; }
  // Plain steps that the next step may lose; never so few that nothing could be won any more.
  double credit() const { return std::max(balance_ + kMostBehind, kMostBehind / 4); }
  // A step with drafting was made, which won so many plain steps; negative: lost.
  void count(double won);
  // A step at rest is to be made; n_echoed: Echoes::hear(). False: it is not, the rest is over.
  bool rest_on(int n_echoed);
  // An echo ended the last rest, and nothing has been won since.
  bool is_woken() const { return is_woken_; }

 private:
  double balance_ = 0.0;
  int rest_ = 0;  // steps still to come
  int next_rest_ = kFirstRest;
  int echo_ = kFirstEcho;
  bool is_woken_ = false;
};

}  // namespace edge
