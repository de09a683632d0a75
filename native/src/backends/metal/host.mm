// Apple's half of gpu/shared_host.h: the device, heaps, pipelines and command buffers. Compiled on macOS only
// (cmake/metal.cmake), so it holds nothing that could be elsewhere.
#import <Foundation/Foundation.h>
#import <Metal/Metal.h>

#include "backends/gpu/shared_host.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <vector>

// The kernels, compiled.
__asm__(".section __TEXT,__const\n.p2align 4\n.globl _edge_metallib, _edge_metallib_end\n"
        "_edge_metallib:\n.incbin \"" EDGE_METALLIB "\"\n_edge_metallib_end:\n.text\n");
extern "C" const char edge_metallib[], edge_metallib_end[];

namespace edge::gpu::shared {
namespace {

constexpr size_t kHeapBytes = size_t{64} << 20;
constexpr int kLaunchesPerBuffer = 128;  // after which the device begins with what there is

std::string text_of(NSError* error) {
  return error == nil ? "unknown error" : error.localizedDescription.UTF8String;
}

// Of the process.
struct Host {
  std::mutex mutex;
  id<MTLDevice> device;
  id<MTLLibrary> library;
  NSMutableArray<id<MTLHeap>>* heaps;
  NSMutableArray<id<MTLBuffer>>* wrapped;
  uint64_t generation = 0;  // of heaps and wrapped
};
Host& host() {
  static Host& one = *new Host;
  return one;
}

id<MTLHeap> add_heap(size_t n_bytes) {
  MTLHeapDescriptor* descriptor = [MTLHeapDescriptor new];
  descriptor.storageMode = MTLStorageModeShared;
  descriptor.size = std::max(kHeapBytes, n_bytes);
  id<MTLHeap> heap = [host().device newHeapWithDescriptor:descriptor];
  if (heap == nil) return nil;
  [host().heaps addObject:heap];
  ++host().generation;
  return heap;
}

// Under the mutex.
id<MTLBuffer> buffer_in_heaps(size_t n_bytes) {
  constexpr MTLResourceOptions kShared = MTLResourceStorageModeShared;
  for (id<MTLHeap> heap in host().heaps) {
    id<MTLBuffer> buffer = [heap newBufferWithLength:n_bytes options:kShared];
    if (buffer != nil) return buffer;
  }
  const MTLSizeAndAlign room = [host().device heapBufferSizeAndAlignWithLength:n_bytes
                                                                       options:kShared];
  return [add_heap(room.size + room.align) newBufferWithLength:n_bytes options:kShared];
}

Buffer described(id<MTLBuffer> buffer) {
  return {static_cast<std::byte*>(buffer.contents), buffer.gpuAddress, buffer.length,
          (__bridge_retained void*)buffer};
}

class MetalQueue final : public Queue {
 public:
  explicit MetalQueue(id<MTLCommandQueue> queue) : queue_(queue) {}

  Status launch(const char* kernel, const Buffer& args, size_t offset, gpu::Grid grid,
                int n_threads) override {
    @autoreleasepool {
      EDGE_ASSIGN_OR_RETURN(const id<MTLComputePipelineState> pipeline, pipeline_of(kernel));
      if (pipeline.maxTotalThreadsPerThreadgroup < static_cast<NSUInteger>(n_threads) ||
          pipeline.threadExecutionWidth != 32) {
        return {Code::kDeviceUnavailable, std::string("Metal: this GPU cannot run ") + kernel +
                                              "; load with backend 'cpu'"};
      }
      begin_encoder();
      [encoder_ setComputePipelineState:pipeline];
      [encoder_ setBuffer:(__bridge id<MTLBuffer>)args.handle offset:offset atIndex:0];
      [encoder_ dispatchThreadgroups:MTLSizeMake(static_cast<NSUInteger>(grid.x),
                                                 static_cast<NSUInteger>(grid.y),
                                                 static_cast<NSUInteger>(grid.z))
               threadsPerThreadgroup:MTLSizeMake(static_cast<NSUInteger>(n_threads), 1, 1)];
      [encoder_ memoryBarrierWithScope:MTLBarrierScopeBuffers];
      if (++n_launches_ == kLaunchesPerBuffer) commit();
    }
    return {};
  }

  Status finish() override {
    @autoreleasepool {
      commit();
      Status status;
      for (id<MTLCommandBuffer> buffer : committed_) {
        [buffer waitUntilCompleted];
        if (buffer.status != MTLCommandBufferStatusError || !status.is_ok()) continue;
        status = {Code::kDeviceFailed, "Metal: " + text_of(buffer.error)};
      }
      committed_.clear();
      return status;
    }
  }

 private:
  Result<id<MTLComputePipelineState>> pipeline_of(const char* kernel) {
    const auto found = pipelines_.find(kernel);
    if (found != pipelines_.end()) return found->second;
    id<MTLFunction> function = [host().library newFunctionWithName:@(kernel)];
    if (function == nil) {
      return {Code::kFeatureUnsupported, std::string("Metal: no kernel ") + kernel};
    }
    NSError* error = nil;
    id<MTLComputePipelineState> pipeline =
        [host().device newComputePipelineStateWithFunction:function error:&error];
    if (pipeline == nil) {
      return {Code::kDeviceFailed, std::string("Metal: ") + kernel + ": " + text_of(error)};
    }
    pipelines_[kernel] = pipeline;
    return pipeline;
  }

  // Dispatches are ordered by their barriers alone.
  void begin_encoder() {
    if (encoder_ == nil) {
      buffer_ = [queue_ commandBuffer];
      encoder_ = [buffer_ computeCommandEncoderWithDispatchType:MTLDispatchTypeConcurrent];
      generation_ = 0;
      n_launches_ = 0;
    }
    const std::lock_guard lock(host().mutex);
    if (generation_ == host().generation) return;
    for (id<MTLHeap> heap in host().heaps) [encoder_ useHeap:heap];
    for (id<MTLBuffer> weights in host().wrapped) {
      [encoder_ useResource:weights usage:MTLResourceUsageRead];
    }
    generation_ = host().generation;
  }

  void commit() {
    if (encoder_ == nil) return;
    [encoder_ endEncoding];
    [buffer_ commit];
    committed_.push_back(buffer_);
    encoder_ = nil;
    buffer_ = nil;
  }

  id<MTLCommandQueue> queue_;
  id<MTLCommandBuffer> buffer_ = nil;
  id<MTLComputeCommandEncoder> encoder_ = nil;
  uint64_t generation_ = 0;  // of what the encoder uses
  int n_launches_ = 0;
  std::vector<id<MTLCommandBuffer>> committed_;
  std::map<std::string, id<MTLComputePipelineState>> pipelines_;
};

}  // namespace

Status open_host() {
  const std::lock_guard lock(host().mutex);
  if (host().library != nil) return {};
  id<MTLDevice> device = MTLCreateSystemDefaultDevice();
  if (device == nil) {
    return {Code::kDeviceUnavailable, "Metal: no device; load with backend 'cpu'"};
  }
  if (![device supportsFamily:MTLGPUFamilyMetal3]) {
    return {Code::kDeviceUnavailable, std::string("Metal: ") + device.name.UTF8String +
                                          " is older than Metal 3; load with backend 'cpu'"};
  }
  const auto n_bytes = static_cast<size_t>(edge_metallib_end - edge_metallib);
  dispatch_data_t data = dispatch_data_create(edge_metallib, n_bytes, nullptr, ^{
                                              });
  NSError* error = nil;
  id<MTLLibrary> library = [device newLibraryWithData:data error:&error];
  if (library == nil) return {Code::kDeviceUnavailable, "Metal: " + text_of(error)};
  host().device = device;
  host().library = library;
  host().heaps = [NSMutableArray new];
  host().wrapped = [NSMutableArray new];
  host().generation = 1;
  return {};
}

Result<Buffer> create_buffer(size_t n_bytes) {
  @autoreleasepool {
    const std::lock_guard lock(host().mutex);
    id<MTLBuffer> buffer = buffer_in_heaps(n_bytes);
    if (buffer == nil) {
      return {Code::kOutOfMemory, "Metal: no memory for " + std::to_string(n_bytes) + " bytes"};
    }
    std::fill_n(static_cast<char*>(buffer.contents), n_bytes, '\0');
    return described(buffer);
  }
}

// Without a copy.
Result<Buffer> share_weights(std::span<const std::byte> weights) {
  @autoreleasepool {
    const auto pages = pages_around(weights, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
    const std::lock_guard lock(host().mutex);
    if (pages.size() > host().device.maxBufferLength) {
      return {Code::kOutOfMemory,
              "Metal: the file has " + std::to_string(pages.size()) +
                  " bytes and a buffer of this device at most " +
                  std::to_string(host().device.maxBufferLength) + "; load with backend 'cpu'"};
    }
    id<MTLBuffer> buffer =
        [host().device newBufferWithBytesNoCopy:const_cast<std::byte*>(pages.data())
                                         length:pages.size()
                                        options:MTLResourceStorageModeShared
                                    deallocator:nil];
    if (buffer == nil) return {Code::kDeviceFailed, "Metal: the file cannot be shared"};
    [host().wrapped addObject:buffer];
    ++host().generation;
    return described(buffer);
  }
}

Result<size_t> weight_room() { return SIZE_MAX; }

void release_buffer(const Buffer& buffer) {
  @autoreleasepool {
    const std::lock_guard lock(host().mutex);
    id<MTLBuffer> released = (__bridge_transfer id<MTLBuffer>)buffer.handle;
    const NSUInteger n_before = host().wrapped.count;
    [host().wrapped removeObjectIdenticalTo:released];
    if (host().wrapped.count != n_before) ++host().generation;
    released = nil;
    for (NSUInteger i = host().heaps.count; i-- > 0;) {
      if (host().heaps[i].usedSize > 0) continue;
      [host().heaps removeObjectAtIndex:i];
      ++host().generation;
    }
  }
}

Result<std::unique_ptr<Queue>> Queue::create() {
  @autoreleasepool {
    id<MTLCommandQueue> queue = [host().device newCommandQueue];
    if (queue == nil) return {Code::kDeviceFailed, "Metal: no command queue"};
    return std::unique_ptr<Queue>(std::make_unique<MetalQueue>(queue));
  }
}

}  // namespace edge::gpu::shared
