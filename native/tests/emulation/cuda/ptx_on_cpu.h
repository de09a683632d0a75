// What backends/cuda/ptx.h has on a device, as the PTX ISA defines it: operations of whole warps
// gather the lanes' registers, and copies arrive when the thread that began them waits. Where a
// fragment's byte i stands is written as the manual has it ("Matrix Fragments for mma.m16n8k32",
// ".m16n8k16" and "ldmatrix").
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "../lockstep.h"
#include "e4m3.h"

namespace cuda_on_cpu {

inline void check_alignment(const void* address, size_t n, const char* site) {
  if (reinterpret_cast<uintptr_t>(address) % n != 0) {
    lockstep::fail_here("an address that is not aligned", site);
  }
}

template <int n>
void copy_async(void* to, const void* from) {
  static_assert(n == 4 || n == 8 || n == 16);
  check_alignment(to, n, "copy_async");
  check_alignment(from, n, "copy_async");
  lockstep::copy_later(to, from, n);
}

// One word of each of the matrices whose rows the lanes name, 8 lanes each.
template <size_t n>
void load_matrices(const char* site, uint32_t (&to)[n], const void* row) {
  const auto rows = lockstep::gather(row, site);
  const unsigned lane = lockstep::thread_number() % lockstep::kWarp;
  for (size_t i = 0; i < n; ++i) {
    const auto* bytes = static_cast<const char*>(rows[8 * i + lane / 4]);
    check_alignment(bytes, 16, site);
    std::memcpy(&to[i], bytes + 4 * (lane % 4), 4);
  }
}

struct Place {
  int row, col;
};
// Of byte i of A's registers, of B's, and of word i of the sums.
inline Place place_in_a(int lane, int i) {
  return {lane / 4 + (i / 4 % 2 == 0 ? 0 : 8), lane % 4 * 4 + i % 4 + (i < 8 ? 0 : 16)};
}
inline Place place_in_b(int lane, int i) {
  return {lane % 4 * 4 + i % 4 + (i < 4 ? 0 : 16), lane / 4};
}
inline Place place_in_sums(int lane, int i) {
  return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + i % 2};
}

// Which lane's byte an element of A or B is.
template <int kDepth>
struct Sources {
  struct Byte {
    uint8_t lane, byte;
  };
  Byte a[16][kDepth], b[kDepth][8];
  Sources() {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < kDepth / 2; ++i) {
        const Place place = place_in_a(lane, i);
        a[place.row][place.col] = {uint8_t(lane), uint8_t(i)};
      }
      for (int i = 0; i < kDepth / 4; ++i) {
        const Place place = place_in_b(lane, i);
        b[place.row][place.col] = {uint8_t(lane), uint8_t(i)};
      }
    }
  }
};

template <size_t n>
struct Registers {
  int8_t bytes[4 * n];
};

template <size_t n_a, size_t n_b>
void multiply_add(const char* site, int (&d)[4], const Registers<n_a>& a, const Registers<n_b>& b,
                  int start) {
  constexpr int kDepth = int{8 * n_a};
  static_assert(n_a == 2 * n_b);
  static const Sources<kDepth> sources;
  const auto all_a = lockstep::gather(a, site);
  const auto all_b = lockstep::gather(b, site);
  const int lane = static_cast<int>(lockstep::thread_number() % lockstep::kWarp);
  for (int i = 0; i < 4; ++i) {
    const Place place = place_in_sums(lane, i);
    d[i] = start;
    for (int k = 0; k < kDepth; ++k) {
      const auto of_a = sources.a[place.row][k], of_b = sources.b[k][place.col];
      d[i] += int{all_a[of_a.lane].bytes[of_a.byte]} * int{all_b[of_b.lane].bytes[of_b.byte]};
    }
  }
}

template <size_t n>
Registers<n> registers(const uint32_t (&words)[n]) {
  Registers<n> result;
  std::memcpy(&result, words, sizeof result);
  return result;
}
inline void multiply_add(const char* site, int (&d)[4], const uint32_t (&a)[4],
                         const uint32_t (&b)[2], int start) {
  multiply_add(site, d, registers(a), registers(b), start);
}
inline void multiply_add(const char* site, int (&d)[4], const uint32_t (&a)[2], uint32_t b,
                         int start) {
  multiply_add(site, d, registers(a), registers<1>({b}), start);
}

// d += a b of E4M3. Products are exact; which way hardware sums them, and with how many bits, the
// manual leaves open: here as floats, one by one.
inline void multiply_add_fp8(const char* site, float (&d)[4], const uint32_t (&a)[4],
                             const uint32_t (&b)[2]) {
  constexpr int kDepth = 32;
  static const Sources<kDepth> sources;
  const std::array<float, 256>& values = e4m3_values();
  const auto all_a = lockstep::gather(registers(a), site);
  const auto all_b = lockstep::gather(registers(b), site);
  const int lane = static_cast<int>(lockstep::thread_number() % lockstep::kWarp);
  for (int i = 0; i < 4; ++i) {
    const Place place = place_in_sums(lane, i);
    for (int k = 0; k < kDepth; ++k) {
      const auto of_a = sources.a[place.row][k], of_b = sources.b[k][place.col];
      d[i] += values[static_cast<uint8_t>(all_a[of_a.lane].bytes[of_a.byte])] *
              values[static_cast<uint8_t>(all_b[of_b.lane].bytes[of_b.byte])];
    }
  }
}
inline uint32_t fp8_pair(float low, float high) {
  return uint32_t{nearest_e4m3(low)} | uint32_t{nearest_e4m3(high)} << 8;
}

}  // namespace cuda_on_cpu

constexpr bool kHasFp8 = true;
#define copy_async cuda_on_cpu::copy_async
#define wait_for_copies() lockstep::wait_for_copies()
#define load_matrices(...) cuda_on_cpu::load_matrices(LOCKSTEP_SITE, __VA_ARGS__)
#define multiply_add(...) cuda_on_cpu::multiply_add(LOCKSTEP_SITE, __VA_ARGS__)
#define multiply_add_fp8(...) cuda_on_cpu::multiply_add_fp8(LOCKSTEP_SITE, __VA_ARGS__)
#define fp8_pair(...) cuda_on_cpu::fp8_pair(__VA_ARGS__)
