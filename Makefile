# Two commands matter, on a fresh machine with python3 >= 3.11, a C++20 compiler and make:
#   make demo   build, install and let the built-in model speak
#   make test   everything that must hold before a change lands
# Both create .venv and install what they need there; nothing else is touched.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
BIN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
NATIVE := $(shell find native -type f)
PACKAGE := $(shell find edgellm converters apps hardware_profiles -type f -not -name '*.py[co]' -not -name '*.so')
CXX_FILES := native/src native/include native/python native/tools native/tests native/fuzz
FIND_CXX = find $(wildcard $(CXX_FILES)) -name '*.cc' -o -name '*.h' -o -name '*.cu'

STORY := Once upon a time, there was a little girl named Lily. She
QUESTION := How do I show the current date?

.PHONY: demo test nightly nightly-npu lint format native sanitize arm windows bench bench-guard docs wheels clean
.PHONY: cuda cuda-wheel gpu-build gpu-test gpu-bench xcframework metal-test vulkan vulkan-wheel vulkan-test
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo
	@printf '\nA story:\n%s' "$(STORY)"
	@$(VENV)/bin/edgellm run demo "$(STORY)" --max-tokens 120 --temperature 0.7 --seed 7
	@echo; echo "A question: $(QUESTION)"
	@$(VENV)/bin/edgellm run demo "$(QUESTION)" --chat --max-tokens 80

# Two at once, for each of these has parts that keep one core busy. And two processes for pytest: more
# only costs memory, since what takes time runs on two threads itself.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint native
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target sanitize arm
	$(BIN) pytest -n 2 --dist loadfile -m "not slow" --durations 25 --durations-min 3

nightly: lint native sanitize arm windows bench-guard
	cd native && $(BIN) cmake --preset asan && $(BIN) cmake --build --preset asan
	EDGELLM_TEST_CYCLES=10000 $(BIN) ctest --test-dir build/asan --output-on-failure
	cd native && $(BIN) cmake --preset tsan -DEDGE_BUILD_TOOLS=OFF && $(BIN) cmake --build --preset tsan
	$(BIN) ctest --test-dir build/tsan --output-on-failure
	build/asan/fuzz/edge_mutate build/seed.edge 100000 --seed 1
	PYTHONPATH=tests $(PY) -P -m golden.blocks build/blocks
	PYTHONPATH=tests $(PY) -P -m golden.adapters build/blocks/adapter.edge
	PYTHONPATH=tests $(PY) -P -m tokenizer.blob_seeds build/tokenizers
	for seed in edgellm/demo/demo.edge build/tokenizers/*.blob; do \
	  build/asan/fuzz/edge_mutate_tokenizer $$seed 20000 || exit 1; done
	for seed in build/blocks/*.edge; do build/asan/fuzz/edge_mutate $$seed 5000 || exit 1; done
	@if [ -x $(TEST_VULKAN) ]; then $(MAKE) --no-print-directory vulkan-validation; fi
	$(BIN) pytest

# Graphs for NPUs, whole models by the vendors' own compilers and simulators, and a table of how far
# they are from the CPU runtime. What is not installed (pip install --group npu-vendors) is skipped
# and named. One core; about 20 minutes.
nightly-npu: $(VENV)/.dev
	@mkdir -p build && rm -f build/npu.jsonl && touch build/npu.jsonl
	OMP_NUM_THREADS=1 EDGELLM_NPU_REPORT=build/npu.jsonl $(BIN) pytest tests/npu -rs --durations 10
	@$(PY) benchmarks/npu_report.py build/npu.jsonl | tee build/npu-report.md

lint: $(VENV)/.dev
	$(BIN) ruff check .
	$(BIN) ruff format --check .
	$(BIN) mypy
	$(FIND_CXX) | $(BIN) xargs clang-format --dry-run -Werror

format: $(VENV)/.dev
	$(BIN) ruff check --fix .
	$(BIN) ruff format .
	$(FIND_CXX) | $(BIN) xargs clang-format -i

# The editable install has built the tests along with the module.
native: $(VENV)/.dev
	$(BIN) ctest --test-dir build/editable --output-on-failure --timeout 600 --parallel 2

# The readers of untrusted files under AddressSanitizer and UndefinedBehaviorSanitizer.
SANITIZED := test_base test_format edge_mutate edge_mutate_tokenizer
sanitize: $(VENV)/.dev
	cd native && $(BIN) cmake --preset asan && $(BIN) cmake --build --preset asan --target $(SANITIZED)
	$(BIN) ctest --test-dir build/asan --output-on-failure -R '^(base|format)$$'
	$(PY) -P tests/tiny_model.py build/seed.edge
	build/asan/fuzz/edge_mutate build/seed.edge 5000
	build/asan/fuzz/edge_mutate_tokenizer edgellm/demo/demo.edge 1000

# The other machines, cross-built; their native tests run here under emulation, and pytest runs both
# programs on models (tests/test_cross_built.py).
arm: $(VENV)/.dev
	@if command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64; then \
	  $(MAKE) --no-print-directory arm-build; \
	else \
	  echo "NOT TESTED: ARM; install packages g++-aarch64-linux-gnu and qemu-user"; fi

windows: $(VENV)/.dev
	@if command -v x86_64-w64-mingw32-g++-posix; then \
	  $(MAKE) --no-print-directory windows-build; \
	else echo "NOT TESTED: Windows; install package g++-mingw-w64-x86-64-posix"; fi

.PHONY: arm-build windows-build
arm-build:
	cd native && $(BIN) cmake --preset aarch64 && $(BIN) cmake --build --preset aarch64
	$(BIN) ctest --test-dir build/aarch64 --output-on-failure --timeout 600 --parallel 2

windows-build:
	cd native && $(BIN) cmake --preset mingw && $(BIN) cmake --build --preset mingw
	@if command -v wine64 || command -v wine; then \
	  WINEPREFIX=$(CURDIR)/build/wine WINEDEBUG=-all $(BIN) \
	    ctest --test-dir build/mingw --output-on-failure; \
	else echo "NOT TESTED: the tests for Windows are built, not run; install package wine64"; fi

# The documentation as a site, in build/docs/site; a warning or a dead link fails.
docs: $(VENV)/.dev
	$(PY) docs/build_site.py build/docs

# The CUDA backend for every chip that nvcc knows, in build/cuda; no GPU needed.
CUDA_FLAGS := -G Ninja -DCMAKE_BUILD_TYPE=Release -DEDGE_BUILD_CUDA=ON
cuda:
	cmake -S native -B build/cuda $(CUDA_FLAGS)
	cmake --build build/cuda --target edgellm_cuda

# The distribution edgellm-cuda, which puts that library beside edgellm's module, in dist/.
cuda-wheel: cuda
	python3 native/device_wheel.py cuda build/cuda/libedgellm_cuda.so dist

# On a machine with an NVIDIA GPU, which needs nvcc, cmake and ninja and nothing from here but the
# sources: every op and whole models against the CPU, bit for bit, twice, then under compute-sanitizer.
GPU_ARCHITECTURES ?= native
GPU_TEST := EDGELLM_CUDA_LIBRARY=$(CURDIR)/build/gpu/libedgellm_cuda.so
gpu-build:
	cmake -S native -B build/gpu $(CUDA_FLAGS) -DEDGE_BUILD_TESTS=ON -DEDGE_BUILD_TOOLS=ON \
	  "-DEDGE_CUDA_ARCHITECTURES=$(GPU_ARCHITECTURES)"
	cmake --build build/gpu --target edgellm_cuda test_cuda edge_ops edge_products edge_bench edge_run \
	  copy_bandwidth

gpu-test: gpu-build
	$(GPU_TEST) build/gpu/tests/test_cuda
	$(GPU_TEST) build/gpu/tests/test_cuda
	for backend in cpu cuda; do $(GPU_TEST) build/gpu/tools/edge_run edgellm/demo/demo.edge \
	  "$(STORY)" -n 200 --backend $$backend > build/gpu/$$backend.txt || exit 1; done
	cmp build/gpu/cpu.txt build/gpu/cuda.txt
	@if command -v compute-sanitizer; then for tool in memcheck racecheck; do $(GPU_TEST) \
	  compute-sanitizer --tool $$tool --error-exitcode 1 build/gpu/tests/test_cuda -tc="*op*" \
	  || exit 1; done; else echo "NOT RUN: compute-sanitizer is not installed"; fi

gpu-bench: gpu-build
	for rows in 1 2 4 8 16 128; do \
	  $(GPU_TEST) build/gpu/tests/edge_ops --backend cuda --rows $$rows || exit 1; done
	$(GPU_TEST) build/gpu/tests/edge_products --backend cuda
	$(GPU_TEST) build/gpu/tools/edge_bench edgellm/demo/demo.edge --backend cuda
	$(GPU_TEST) python3 -P benchmarks/gpu.py build/gpu --write docs/BENCHMARKS.md $(if $(LLAMA_CPP),\
	  --llama $(LLAMA_CPP) --gguf $(LLAMA_GGUF))

# On a Mac with Xcode, cmake and ninja: every op and whole models on its GPU against the CPU, bit for
# bit, twice.
metal-test:
	cmake -S native -B build/metal -G Ninja -DCMAKE_BUILD_TYPE=Release -DEDGE_BUILD_METAL=ON \
	  -DEDGE_BUILD_TESTS=ON -DEDGE_BUILD_TOOLS=ON
	cmake --build build/metal --target test_metal edge_ops edge_bench edge_run
	MTL_SHADER_VALIDATION=1 build/metal/tests/test_metal
	build/metal/tests/test_metal
	build/metal/tests/edge_ops --backend metal
	build/metal/tools/edge_bench edgellm/demo/demo.edge --backend metal

# The Vulkan backend, in build/vulkan, and as the distribution edgellm-vulkan, in dist/; needs glslc and
# Vulkan's headers, no GPU.
vulkan:
	cmake -S native -B build/vulkan -G Ninja -DCMAKE_BUILD_TYPE=Release -DEDGE_BUILD_VULKAN=ON \
	  -DEDGE_BUILD_TESTS=ON -DEDGE_BUILD_TOOLS=ON
	cmake --build build/vulkan --target edgellm_vulkan

vulkan-wheel: vulkan
	python3 native/device_wheel.py vulkan build/vulkan/libedgellm_vulkan.so dist

# On a machine with a Vulkan device, or Mesa's driver for the CPU: every op and whole models against the
# CPU, bit for bit, then under the validation layers, if they are installed, and the measurements.
VULKAN_TEST := EDGELLM_REQUIRE_VULKAN=1 EDGELLM_VULKAN_LIBRARY=$(CURDIR)/build/vulkan/libedgellm_vulkan.so
vulkan-test: vulkan
	cmake --build build/vulkan --target test_vulkan edge_ops edge_run edge_bench
	$(VULKAN_TEST) build/vulkan/tests/test_vulkan
	$(MAKE) --no-print-directory vulkan-validation TEST_VULKAN=build/vulkan/tests/test_vulkan
	for backend in cpu vulkan; do $(VULKAN_TEST) build/vulkan/tools/edge_run edgellm/demo/demo.edge \
	  "$(STORY)" -n 200 --backend $$backend > build/vulkan/$$backend.txt || exit 1; done
	cmp build/vulkan/cpu.txt build/vulkan/vulkan.txt
	$(VULKAN_TEST) build/vulkan/tests/edge_ops --backend vulkan
	$(VULKAN_TEST) build/vulkan/tools/edge_bench edgellm/demo/demo.edge --backend vulkan

# Khronos' validation of every call and kernel, then of every address that kernels
# use, where each allocation is a buffer of its own; a write beyond one is planted, and found. One
# message fails.
.PHONY: vulkan-validation
TEST_VULKAN ?= build/editable/tests/test_vulkan
VALIDATION := VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation
ADDRESSES := EDGELLM_VULKAN_APART=1 VK_LAYER_ENABLES=VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT
COMPLAINTS := 'VUID|UNASSIGNED|Validation Error'
vulkan-validation:
	@if ls /usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json >/dev/null 2>&1; then \
	  set -e; \
	  $(VALIDATION) $(TEST_VULKAN) > build/vulkan-calls.log; \
	  $(VALIDATION) $(ADDRESSES) $(TEST_VULKAN) > build/vulkan-addresses.log; \
	  if grep -E $(COMPLAINTS) build/vulkan-calls.log build/vulkan-addresses.log; then exit 1; fi; \
	  $(VALIDATION) $(ADDRESSES) $(TEST_VULKAN) -ns -tc='planted*' > build/vulkan-planted.log; \
	  grep -qE $(COMPLAINTS) build/vulkan-planted.log; \
	else echo "NOT RUN: Vulkan's validation; install package vulkan-validationlayers"; fi

# On a Mac with Xcode: the C interface with the Metal backend, for macOS, iOS and its simulator, in
# build/apple/edgellm.xcframework.
xcframework:
	sh native/xcframework.sh build/apple

bench: $(VENV)/.demo
	$(VENV)/bin/edgellm bench demo

# Instruction counts of the kernels against the committed ones; needs valgrind.
bench-guard: $(VENV)/.dev
	$(PY) -P benchmarks/guard.py build/editable/tools/edge_kernels

# The wheels of this machine and, cross-built, of Linux on ARM, for systems from glibc 2.28 on or
# older ones, in dist/.
wheels: $(VENV)/.dev
	$(PIP) --group wheels
	@$(MAKE) --no-print-directory wheel ARCH=$$(uname -m)
	@if command -v aarch64-linux-gnu-g++; then $(MAKE) --no-print-directory arm-wheel; \
	else echo "NO WHEEL for aarch64: install package g++-aarch64-linux-gnu"; fi

# auditwheel names a wheel after the oldest system that has all symbols it asks for.
.PHONY: wheel arm-wheel
wheel:
	rm -rf build/wheelhouse
	$(PY) -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheelhouse/plain \
	  -C cmake.define.EDGE_MANYLINUX=ON $(WHEEL_SETTINGS) .
	$(BIN) auditwheel show build/wheelhouse/plain/*.whl
	$(BIN) auditwheel repair --only-plat --wheel-dir build/wheelhouse build/wheelhouse/plain/*.whl
	@ls build/wheelhouse/*.whl | grep -E 'manylinux_2_(5|12|17|24|26|27|28)_$(ARCH)' || { \
	  echo "error: the module asks for symbols (above) that glibc 2.28 lacks and" \
	  "native/cmake/manylinux.cmake does not replace"; exit 1; }
	mkdir -p dist && cp build/wheelhouse/*.whl dist

# For the Python that builds it, with that one's headers: they are the same on every 64-bit Linux
# but for Debian's own package, which has them in a directory per architecture (libpython3-dev).
ARM_SUFFIX = $(shell $(PY) -c 'import sys; print(".cpython-%d%d-aarch64-linux-gnu.so" % sys.version_info[:2])')
ARM_SETTINGS = -C cmake.define.CMAKE_TOOLCHAIN_FILE=$(CURDIR)/native/cmake/aarch64-linux-gnu.cmake \
  -C cmake.define.PYTHON_MODULE_EXTENSION=$(ARM_SUFFIX)
arm-wheel:
	@_PYTHON_HOST_PLATFORM=linux-aarch64 SETUPTOOLS_EXT_SUFFIX=$(ARM_SUFFIX) \
	  $(MAKE) --no-print-directory wheel ARCH=aarch64 WHEEL_SETTINGS="$(ARM_SETTINGS)"

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# --- environments ---------------------------------------------------------------------------------

$(PY):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: $(PYTHON) not found; install Python 3.11 or newer (package python3)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) -V); edgellm needs 3.11 or newer (package python3.11," \
	  "then: make PYTHON=python3.11)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments; install package python3-venv"; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig as s; s = s.get_path("include"); \
	  raise SystemExit(not os.path.exists(os.path.join(s, "Python.h")))' || { \
	  echo "error: the C headers of $(PYTHON) are missing; install package python3-dev"; exit 1; }
	@for cxx in "$$CXX" c++ g++ clang++; do \
	  echo '#include <span>' | $${cxx:-false} -std=c++20 -x c++ -fsyntax-only - 2>/dev/null && exit 0; \
	done; echo "error: no C++20 compiler found; install package g++ (11 or newer) or clang"; exit 1
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

$(VENV)/.demo: $(PY) pyproject.toml $(NATIVE) $(PACKAGE)
	@echo "building and installing edgellm into $(VENV) (a minute or two the first time) ..."
	$(PIP) .
	@rm -f $(VENV)/.dev && touch $@

$(VENV)/.dev: $(PY) pyproject.toml $(NATIVE)
	$(PIP) --no-compile --group dev
	$(PIP) --editable '.[convert]'
	@rm -f $(VENV)/.demo && touch $@
