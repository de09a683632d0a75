#include "lockstep.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#if defined(__x86_64__)
// A call without system calls: swapcontext() takes fifteen times as long.
extern "C" void lockstep_switch(void** from, void* to);
__asm__(
    ".text\n.globl lockstep_switch\n.type lockstep_switch,@function\nlockstep_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size lockstep_switch,.-lockstep_switch\n");
#else
#include <ucontext.h>
#endif

namespace lockstep {
namespace {

constexpr size_t kStackBytes = size_t{64} << 10;
constexpr int kPoison = 0xff;  // NaN as floats, -1 as integers

enum class Wait : uint8_t { kNothing, kWarp, kGroup, kDone };

struct Copy {
  void* to;
  const void* from;
  size_t n;
};

struct Fibre {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  std::unique_ptr<char[]> stack;
  Wait wait = Wait::kNothing;
  const char* site = nullptr;
  unsigned n_exchanges = 0;
  std::vector<Copy> copies;  // that have not arrived
};

struct SharedBlock {
  std::unique_ptr<char[]> memory;
  void* address = nullptr;
};

struct Group {
  Dim grid, block, index;
  unsigned n_threads = 0;
  unsigned current = 0;
  const std::function<void()>* body = nullptr;
  std::map<const void*, SharedBlock> shared;
  alignas(16) char slots[2][kMaxThreads][16];
};

Order order = Order::kForward;
std::mt19937 random_order;
Group group;
Fibre scheduler;
std::vector<Fibre> fibres;

Fibre& self() { return fibres[group.current]; }

[[noreturn]] void fail(const char* what, unsigned thread, const char* site) {
  std::fprintf(stderr, "lockstep: %s (block %u,%u,%u thread %u) at %s\n", what, group.index.x,
               group.index.y, group.index.z, thread, site == nullptr ? "the end" : site);
  std::abort();
}

#if defined(__x86_64__)
void switch_to(Fibre& from, Fibre& to) { lockstep_switch(&from.stack_pointer, to.stack_pointer); }
#else
void switch_to(Fibre& from, Fibre& to) { swapcontext(&from.context, &to.context); }
#endif

// Not inlined: run_fibre() never returns, and what it left on its stack would be poison to
// AddressSanitizer when the stack serves again.
__attribute__((noinline)) void run_body() {
  (*group.body)();
  if (!self().copies.empty()) fail("copies that nothing waited for", group.current, nullptr);
}

void run_fibre() {
  run_body();
  self().wait = Wait::kDone;
  self().site = nullptr;
  switch_to(self(), scheduler);
  std::abort();  // nobody resumes what is done
}

void prepare(Fibre& fibre) {
  if (fibre.stack == nullptr) fibre.stack.reset(new char[kStackBytes]);
  fibre.wait = Wait::kNothing;
  fibre.n_exchanges = 0;
  fibre.copies.clear();
#if defined(__x86_64__)
  const uintptr_t end = reinterpret_cast<uintptr_t>(fibre.stack.get()) + kStackBytes;
  void** top = reinterpret_cast<void**>(end & ~uintptr_t{15});
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&run_fibre);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the registers that a switch restores
  fibre.stack_pointer = top;
#else
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStackBytes;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, run_fibre, 0);
#endif
}

void wait_at(Wait wait, const char* site) {
  self().wait = wait;
  self().site = site;
  switch_to(self(), scheduler);
}

std::vector<unsigned> in_order(unsigned n) {
  std::vector<unsigned> numbers(n);
  std::iota(numbers.begin(), numbers.end(), 0u);
  if (order == Order::kReverse) std::reverse(numbers.begin(), numbers.end());
  if (order == Order::kShuffled) std::shuffle(numbers.begin(), numbers.end(), random_order);
  return numbers;
}

// Lets the lanes of a warp go that have all come to one operation.
bool release_warp(unsigned first) {
  const unsigned end = std::min(first + kWarp, group.n_threads);
  const char* site = nullptr;
  for (unsigned i = first; i < end; ++i) {
    if (fibres[i].wait == Wait::kWarp) site = fibres[i].site;
  }
  if (site == nullptr) return false;
  for (unsigned i = first; i < end; ++i) {
    if (fibres[i].wait == Wait::kDone) fail("warp operation with lanes that have ended", i, site);
    if (fibres[i].wait == Wait::kGroup) fail("warp operation beside a barrier", i, site);
    if (fibres[i].site != site) fail("lanes at different warp operations", i, fibres[i].site);
  }
  for (unsigned i = first; i < end; ++i) fibres[i].wait = Wait::kNothing;
  return true;
}

// The lanes of a warp, through its operations to where they wait for other warps.
void run_warp(unsigned first) {
  const unsigned n_lanes = std::min(kWarp, group.n_threads - first);
  do {
    for (const unsigned lane : in_order(n_lanes)) {
      if (fibres[first + lane].wait != Wait::kNothing) continue;
      group.current = first + lane;
      switch_to(scheduler, fibres[first + lane]);
    }
  } while (release_warp(first));
}

// The same for the barrier of the group. False: all have ended.
bool release_group() {
  const Fibre& first = fibres.front();
  for (unsigned i = 0; i < group.n_threads; ++i) {
    if ((fibres[i].wait == Wait::kDone) != (first.wait == Wait::kDone)) {
      fail("barrier that not all threads reach", i, fibres[i].site);
    }
    if (fibres[i].site != first.site) fail("threads at different barriers", i, fibres[i].site);
  }
  if (first.wait == Wait::kDone) return false;
  for (unsigned i = 0; i < group.n_threads; ++i) fibres[i].wait = Wait::kNothing;
  return true;
}

void run_group(unsigned number) {
  const Dim& grid = group.grid;
  group.index = {number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y)};
  group.shared.clear();
  for (unsigned i = 0; i < group.n_threads; ++i) prepare(fibres[i]);
  const unsigned n_warps = (group.n_threads + kWarp - 1) / kWarp;
  do {
    for (const unsigned warp : in_order(n_warps)) run_warp(warp * kWarp);
  } while (release_group());
}

}  // namespace

void set_order(Order new_order, unsigned seed) {
  order = new_order;
  random_order.seed(seed);
}

void launch(Dim grid, Dim block, const std::function<void()>& body) {
  group.grid = grid;
  group.block = block;
  group.n_threads = block.count();
  if (group.n_threads == 0 || group.n_threads > kMaxThreads) fail("threads of a block", 0, nullptr);
  if (grid.count() == 0) fail("an empty grid", 0, nullptr);
  group.body = &body;
  if (fibres.size() < group.n_threads) fibres.resize(group.n_threads);
  for (const unsigned number : in_order(grid.count())) run_group(number);
  group.shared.clear();
}

Dim grid_dim() { return group.grid; }
Dim block_dim() { return group.block; }
Dim block_index() { return group.index; }
unsigned thread_number() { return group.current; }
Dim thread_index() {
  const unsigned t = group.current;
  return {t % group.block.x, t / group.block.x % group.block.y,
          t / (group.block.x * group.block.y)};
}

void sync_group(const char* site) { wait_at(Wait::kGroup, site); }
void sync_warp(const char* site) { wait_at(Wait::kWarp, site); }

void fail_here(const char* what, const char* site) { fail(what, group.current, site); }

void copy_later(void* to, const void* from, size_t n) {
  std::memset(to, kPoison, n);
  self().copies.push_back({to, from, n});
}
void wait_for_copies() {
  for (const Copy& copy : self().copies) std::memcpy(copy.to, copy.from, copy.n);
  self().copies.clear();
}

namespace detail {

void* own_slot() { return group.slots[self().n_exchanges % 2][group.current]; }
const void* slot_of(unsigned thread) { return group.slots[self().n_exchanges % 2][thread]; }
void flip_slots() { ++self().n_exchanges; }

// new char[n] ends where the variable ends, so that AddressSanitizer sees the first byte beyond.
void* shared_block(const void* key, size_t n_bytes, size_t alignment) {
  SharedBlock& block = group.shared[key];
  if (block.address == nullptr) {
    if (alignment > alignof(std::max_align_t)) fail("alignment of shared memory", 0, nullptr);
    block.memory.reset(new char[n_bytes]);
    block.address = block.memory.get();
    std::memset(block.address, kPoison, n_bytes);
  }
  return block.address;
}

}  // namespace detail
}  // namespace lockstep
