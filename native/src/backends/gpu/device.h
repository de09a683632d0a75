// What GpuBackend drives: one device with its memory and a queue of kernels, of CUDA, Metal or
// Vulkan. Kernels are those of this directory, or vulkan/kernels, by name, each with a struct of
// args.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/os.h"
#include "base/status.h"

namespace edge::gpu {

// Of a device's memory, what is left for steps: rooms, of which that of attention takes 64 MiB,
// mail, and what a driver allocates in parts.
constexpr size_t kStepBytes = size_t{384} << 20;

// Groups of a launch.
struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

// Scratch of an op, on the device alone.
enum class Room { kQueries, kKeys, kValues, kParts, kShared, kOrder, kExpertParts, kFp8 };
constexpr size_t kRooms = 8;

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* name() const = 0;   // of the backend: "cuda"
  virtual const char* title() const = 0;  // in messages: "CUDA"
  // Whether kernels can compute in f64, such as rope_table.
  virtual bool has_f64() const = 0;
  // Matrix units: those with gemm_a8 (cuda/gemm.cu) and with gemm_float (metal/gemm.metal).
  virtual bool has_int8_matrices() const { return false; }
  virtual bool has_float_matrices() const { return false; }
  // Whether it was opened for those of 8-bit floats (cuda/gemm_fp8.cu), which have not the CPU's
  // bits.
  virtual bool takes_fp8() const { return false; }

  // ---- memory
  // Zero-filled, for host and device: the host may touch it while nothing is queued.
  virtual PageBuffer::Allocate allocator() const = 0;
  // Bytes of the host that never change, for kernels to read.
  virtual Status load(std::span<const std::byte> weights) = 0;
  // What load() may take and leave enough for steps; SIZE_MAX where it takes nothing.
  virtual Result<size_t> weight_room() const { return SIZE_MAX; }
  // Where the device sees what load() was given; null: it was not.
  virtual const std::byte* loaded(const void* from, size_t n_bytes) const = 0;
  // Where it sees what allocator() gave, or a byte within; null: it did not.
  virtual std::byte* address(const void* allocated) const = 0;
  // At least n bytes, the same until one op asks for more; the device's address.
  virtual Result<std::byte*> room(Room which, size_t n_bytes) = 0;
  // A copy for the kernels of this step; the device's address.
  virtual Result<const std::byte*> send(std::span<const std::byte> bytes) = 0;

  // ---- a step
  // Waits, forgets what was sent, and clears flag().
  virtual Status begin() = 0;
  // An int32, the device's address, that kernels set where a value is not finite.
  virtual int32_t* flag() = 0;
  // args: valid during the call.
  virtual Status launch(const char* kernel, std::span<const std::byte> args, Grid grid,
                        int n_threads) = 0;
  // Nothing is queued any more.
  virtual Status wait() = 0;
  // Copies what allocator() gave as it is behind what is queued; there after end().
  virtual Status fetch(const void* from, size_t n_bytes, void* to) = 0;
  // Waits. True: all values were finite.
  virtual Result<bool> end() = 0;
};

}  // namespace edge::gpu
