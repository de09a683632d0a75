// Runs GPU kernels on the CPU: the threads of a group are fibres on one OS thread, and each runs
// until a barrier or a warp operation. What hardware leaves open is made to show:
//   - groups, and between two barriers the warps of a group, each as far as it comes, and the
//     threads of a warp, run forward, in reverse or shuffled, so that a missing barrier or a race
//     changes results in one of the three;
//   - shared memory is a heap block of its own for each group and variable, filled with NaN: stale
//     values cannot pass for fresh ones, and AddressSanitizer sees an index beyond the end;
//   - a copy that runs beside its thread leaves poison where it goes until that thread waits;
//   - a barrier that some threads do not reach, or reach elsewhere, and a warp operation without
//     all of its lanes end the program with a message that names the place.
// docs/backends.md says what that proves and what it does not. One launch at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>

namespace lockstep {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;  // of a group

enum class Order { kForward, kReverse, kShuffled };

struct Dim {
  unsigned x = 1, y = 1, z = 1;
  unsigned count() const { return x * y * z; }
};

// In which order groups and threads run from now on; `seed` is for kShuffled.
void set_order(Order order, unsigned seed = 0);

// Runs body() once for every thread of every group. A failure prints "lockstep: ..." to stderr and
// aborts.
void launch(Dim grid, Dim block, const std::function<void()>& body);

// Of the running thread.
Dim grid_dim();
Dim block_dim();
Dim block_index();
Dim thread_index();
unsigned thread_number();  // in its group, x fastest

// Barriers of a group and of a warp; `site` names the call.
void sync_group(const char* site);
void sync_warp(const char* site);

// Ends the program with a message.
[[noreturn]] void fail_here(const char* what, const char* site);

// Copies n bytes once the running thread waits for its copies, which it must before it ends.
void copy_later(void* to, const void* from, size_t n);
void wait_for_copies();

namespace detail {
// 16 bytes that the running thread shows the others of its warp at its next exchange.
void* own_slot();
const void* slot_of(unsigned thread);
// Moves on to the other of two sets of slots: with one set a lane could overwrite what another has
// yet to read.
void flip_slots();
// The block that a variable of the running group has.
void* shared_block(const void* key, size_t n_bytes, size_t alignment);
}  // namespace detail

// The value of `v` in lane `lane` of this warp.
template <class T>
T exchange(T v, unsigned lane, const char* site) {
  static_assert(sizeof(T) <= 16);
  std::memcpy(detail::own_slot(), &v, sizeof v);
  sync_warp(site);
  const unsigned first = thread_number() / kWarp * kWarp;
  const unsigned source = std::min(first + lane % kWarp, block_dim().count() - 1);
  T result;
  std::memcpy(&result, detail::slot_of(source), sizeof result);
  detail::flip_slots();
  return result;
}

// The values of `v` in all lanes of this warp, which must be a whole one.
template <class T>
std::array<T, kWarp> gather(const T& v, const char* site) {
  static_assert(sizeof(T) <= 16);
  const unsigned first = thread_number() / kWarp * kWarp;
  if (first + kWarp > block_dim().count())
    fail_here("an operation of a whole warp in a part", site);
  std::memcpy(detail::own_slot(), &v, sizeof v);
  sync_warp(site);
  std::array<T, kWarp> all;
  for (unsigned i = 0; i < kWarp; ++i) std::memcpy(&all[i], detail::slot_of(first + i), sizeof v);
  detail::flip_slots();
  return all;
}

// The group's variable that a call stands for. Tag: a type of its own for every declaration.
template <class T, class Tag>
T& shared(Tag) {
  static const char key = 0;
  return *static_cast<T*>(detail::shared_block(&key, sizeof(T), alignof(T)));
}

}  // namespace lockstep

#define LOCKSTEP_TEXT2(x) #x
#define LOCKSTEP_TEXT(x) LOCKSTEP_TEXT2(x)
#define LOCKSTEP_SITE __FILE__ ":" LOCKSTEP_TEXT(__LINE__)
