// What every kernel begins with: threads and groups, pointers, and what kernels are given, which
// cmake/vulkan.cmake makes of gpu/args.h (build/.../args.glsl), so that host and kernels cannot
// differ. The same kernels as gpu/*.inl.h, which GLSL cannot read: it has neither pointers to
// shared memory nor templates. Nothing here depends on how large a subgroup is.
#ifndef EDGE_DIALECT_GLSL
#define EDGE_DIALECT_GLSL

#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_shader_explicit_arithmetic_types_int16 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int32 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#extension GL_EXT_spirv_intrinsics : require

// SignedZeroInfNanPreserve for 32 bits: NaN and infinities are found where they are.
spirv_execution_mode(extensions = ["SPV_KHR_float_controls"], capabilities = [4466], 4461, 32);

#define THREAD int(gl_LocalInvocationIndex)
#define GROUP ivec3(gl_WorkGroupID)
#define SYNC()           \
  {                      \
    memoryBarrierBuffer(); \
    memoryBarrierShared(); \
    barrier();           \
  }

// TYPE_ptr p: AT(p, i).v is what p[i] is in C++, and AT(p, i) what p + i is. AS() converts.
#define EDGE_POINTER(type, alignment)                                               \
  layout(buffer_reference, scalar, buffer_reference_align = alignment) buffer type##_ptr { \
    type v;                                                                         \
  };
#define AS(type, p) type##_ptr(uint64_t(p))
#define AT(p, i) ((p) + uint64_t(i))
#define IS_NULL(p) (uint64_t(p) == 0ul)

EDGE_POINTER(float, 4)
EDGE_POINTER(int8_t, 1)
EDGE_POINTER(uint8_t, 1)
EDGE_POINTER(uint16_t, 2)
EDGE_POINTER(int32_t, 4)
EDGE_POINTER(uint32_t, 4)
EDGE_POINTER(uint64_t, 8)
EDGE_POINTER(ivec4, 16)
layout(buffer_reference) buffer Row_ptr;
layout(buffer_reference) buffer Page_ptr;
layout(buffer_reference) buffer PageTable_ptr;
layout(buffer_reference) buffer RowGroup_ptr;
layout(buffer_reference) buffer ExpertPart_ptr;
// Of x where one thread reads what another of its group wrote.
layout(buffer_reference, scalar, buffer_reference_align = 4) coherent buffer row_ptr { float v; };

#include "args.glsl"
#include "constants.glsl"

EDGE_POINTER(Row, 4)
EDGE_POINTER(Page, 8)
EDGE_POINTER(PageTable, 8)
EDGE_POINTER(RowGroup, 4)
EDGE_POINTER(ExpertPart, 4)

// After EDGE_ARGS(Type), `args` is the kernel's.
layout(push_constant) uniform Push { uint64_t args_at; };
#define EDGE_ARGS(Type)  \
  EDGE_POINTER(Type, 8)  \
  Type args = Type##_ptr(args_at).v;

int larger(int a, int b) { return a > b ? a : b; }
int smaller(int a, int b) { return a < b ? a : b; }

#endif
