// What is the same on every system.
#include "base/os.h"

#include <utility>

namespace edge {

PageBuffer PageBuffer::adopt(std::byte* data, size_t n_bytes, Release release) {
  PageBuffer buffer;
  buffer.data_ = data;
  buffer.size_bytes_ = n_bytes;
  buffer.release_ = release;
  return buffer;
}

PageBuffer::PageBuffer(PageBuffer&& other) noexcept { *this = std::move(other); }

PageBuffer& PageBuffer::operator=(PageBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(release_, other.release_);
  return *this;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(identity_, other.identity_);
  std::swap(handle_, other.handle_);
  return *this;
}

}  // namespace edge
