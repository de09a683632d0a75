// What the functions of c_api.h share: exceptions to statuses, buffers, structs that may grow. The
// one place where exceptions end. Knows no handle's content.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "api/guard.h"
#include "edgellm/c_api.h"
#include "edgellm/engine.h"

struct edgellm_model {
  edgellm::Model model;
};

struct edgellm_tokenizer {
  edgellm::Tokenizer tokenizer;
};

struct edgellm_stream_decoder {
  std::mutex mutex;  // both below
  edgellm::StreamDecoder decoder;
  std::string text;  // pushed, not yet taken
};

struct edgellm_session {
  edgellm::Session session;
  std::mutex append_mutex;  // keeps the queue from growing while its logits are measured out
};

struct edgellm_adapter {
  edgellm::Adapter adapter;
};

namespace edge::capi {

// Keeps the message for edgellm_last_error() and returns the number of the code.
edgellm_status fail(std::string_view code, std::string_view message) noexcept;

// Runs `body` as a C entry.
template <class F>
edgellm_status guarded(F&& body) noexcept {
  try {
    std::forward<F>(body)();
    return EDGELLM_OK;
  } catch (const edgellm::Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail("out_of_memory", "the system has no more memory; use a smaller n_ctx or model");
  } catch (const std::exception& error) {
    return fail("os_failure", error.what());
  } catch (...) {
    return fail("os_failure", "an exception of unknown type");
  }
}

[[noreturn]] inline void refuse(const std::string& message) {
  api::raise(Code::kInvalidArgument, message);
}

// Refuses NULL, by the name of the argument.
template <class T>
T& required(T* pointer, const char* name) {
  if (pointer == nullptr) refuse(std::string(name) + " is NULL");
  return *pointer;
}

// A caller's array; (NULL, 0) is the empty one.
template <class T>
std::span<const T> input(const T* data, size_t n, const char* name) {
  if (data == nullptr && n > 0) refuse(std::string(name) + " is NULL and its length is not 0");
  if (n > PTRDIFF_MAX / sizeof(T)) refuse(std::string(name) + ": the length is not a real one");
  return {data, n};
}

inline std::string_view text_input(const char* data, size_t n_bytes, const char* name) {
  const std::span<const char> text = input(data, n_bytes, name);
  return {text.data(), text.size()};
}

inline std::string path_input(const char* data, size_t n_bytes) {
  const std::string_view path = text_input(data, n_bytes, "path");
  if (path.empty()) refuse("path is empty; give the path of a .edge file");
  if (path.find('\0') != std::string_view::npos) refuse("path holds a NUL byte");
  return std::string(path);
}

inline void check_flags(uint32_t flags, uint32_t known) {
  if ((flags & ~known) != 0) {
    refuse("flags is " + std::to_string(flags) + "; this call knows the bits of " +
           std::to_string(known));
  }
}

// A buffer of the caller, before anything is computed for it.
template <class T>
void check_buffer(const T* buffer, size_t capacity, const size_t* n_needed) {
  required(n_needed, "n_needed");
  if (buffer == nullptr && capacity > 0) refuse("the buffer is NULL and its capacity is not 0");
}

[[noreturn]] inline void raise_too_small(size_t capacity, size_t n) {
  api::raise(Code::kBufferTooSmall, "the buffer holds " + std::to_string(capacity) +
                                        " elements and " + std::to_string(n) +
                                        " are needed; call again with a larger one");
}

// True if `from` was copied, false if only its size was asked for.
template <class T, class Out>
bool write_out(std::span<const T> from, Out* buffer, size_t capacity, size_t* n_needed) {
  *n_needed = from.size();
  if (buffer == nullptr) return from.empty();
  if (from.size() > capacity) raise_too_small(capacity, from.size());
  if (!from.empty()) std::memcpy(buffer, from.data(), from.size_bytes());
  return true;
}

template <class Out>
bool write_text(std::string_view text, Out* buffer, size_t capacity, size_t* n_needed) {
  return write_out(std::span(text.data(), text.size()), buffer, capacity, n_needed);
}

// The size of T in the first version that had it. A struct that grows gets a specialisation with
// the size it had, so that programs built before stay welcome.
template <class T>
constexpr size_t kFirstBytes = sizeof(T);
template <>
inline constexpr size_t kFirstBytes<edgellm_load_options> =
    offsetof(edgellm_load_options, latency_budget_ms);
template <>
inline constexpr size_t kFirstBytes<edgellm_model_info> = offsetof(edgellm_model_info, kv_format);
template <>
inline constexpr size_t kFirstBytes<edgellm_session_state> =
    offsetof(edgellm_session_state, n_recompute);
template <>
inline constexpr size_t kFirstBytes<edgellm_session_stats> =
    offsetof(edgellm_session_stats, n_reused_tokens);
constexpr size_t kMaxStructBytes = 4096;  // more is no size but an uninitialised struct

template <class T>
size_t checked_struct_size(const T& value, const char* name) {
  const size_t n_bytes = value.struct_size;
  if (n_bytes < kFirstBytes<T> || n_bytes > kMaxStructBytes) {
    refuse(std::string(name) + "->struct_size is " + std::to_string(n_bytes) +
           "; start with the EDGELLM_..._INIT macro of the struct");
  }
  return n_bytes;
}

// `given` over `defaults`; NULL gives the defaults. A field that this library does not know must
// be zero: it could not be honoured.
template <class T>
T read_struct(const T* given, const T& defaults, const char* name) {
  T value = defaults;
  if (given == nullptr) return value;
  const size_t n_bytes = checked_struct_size(*given, name);
  std::memcpy(&value, given, std::min(n_bytes, sizeof(T)));
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (size_t i = sizeof(T); i < n_bytes; ++i) {
    if (bytes[i] != 0) refuse(std::string(name) + " sets a field that this library does not know");
  }
  return value;
}

// What the caller's struct has room for; fields unknown here become zero.
template <class T>
void write_struct(T value, T* out, const char* name) {
  const size_t n_bytes = checked_struct_size(required(out, name), name);
  value.struct_size = n_bytes;
  std::memcpy(out, &value, std::min(n_bytes, sizeof(T)));
  if (n_bytes > sizeof(T)) {
    std::memset(reinterpret_cast<unsigned char*>(out) + sizeof(T), 0, n_bytes - sizeof(T));
  }
}

template <size_t kBytes>
void copy_name(std::string_view text, char (&out)[kBytes]) {
  if (text.size() >= kBytes) api::raise(Code::kOsFailure, "a name is longer than its field");
  std::copy(text.begin(), text.end(), out);
  out[text.size()] = '\0';
}

}  // namespace edge::capi
