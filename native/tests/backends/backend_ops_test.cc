// Every op of the decoder on the CPU backend: whatever the instruction set and the threads, the
// bits of the scalar kernels on one thread. tests/emulation does the same for other backends.
#include "backend_ops_check.h"
#include "backends/cpu/cpu_backend.h"
#include "doctest/doctest.h"
#include "kernels/kernels.h"

using namespace edge;

TEST_CASE("every op has the scalar CPU's bits, on every instruction set") {
  for (const Isa isa : supported_isas()) {
    CAPTURE(isa_name(isa));
    test::check_all_shapes([&] { return create_cpu_backend(kernel_table(isa), 2); });
  }
}

TEST_CASE("a row's bits do not depend on the rows beside it") {
  test::check_rows_alone([] { return create_cpu_backend(active_kernels(), 2); });
}

TEST_CASE("what is not finite is told at the end of its step, and of no later one") {
  test::check_not_finite([] { return create_cpu_backend(active_kernels(), 2); });
}
