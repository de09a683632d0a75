// The Python module edgellm._cpu: does this processor have what the rest of the library is compiled
// for (edge_baseline)? Built for the oldest processor of the architecture and asked before
// edgellm._native is loaded, whose static initialisers could already be an illegal instruction.
#include <Python.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

#if defined(__x86_64__)
struct Feature {
  const char* name;
  unsigned leaf;
  int ecx_bit;
};

// x86-64-v2 beyond x86-64.
constexpr Feature kNeeded[] = {
    {"SSE3", 1, 0},    {"SSSE3", 1, 9},   {"CMPXCHG16B", 1, 13},         {"SSE4.1", 1, 19},
    {"SSE4.2", 1, 20}, {"POPCNT", 1, 23}, {"LAHF/SAHF", 0x80000001u, 0},
};

bool has(const Feature& feature) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(feature.leaf, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (ecx >> feature.ecx_bit & 1u) != 0;
}
#endif

PyObject* missing(PyObject*, PyObject*) {
  PyObject* names = PyList_New(0);
  if (names == nullptr) return nullptr;
#if defined(__x86_64__)
  for (const Feature& feature : kNeeded) {
    if (has(feature)) continue;
    PyObject* name = PyUnicode_FromString(feature.name);
    const bool failed = name == nullptr || PyList_Append(names, name) != 0;
    Py_XDECREF(name);
    if (failed) {
      Py_DECREF(names);
      return nullptr;
    }
  }
#endif
  return names;
}

PyMethodDef methods[] = {
    {"missing", missing, METH_NOARGS, "Names of needed instruction sets that are absent."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT,
                      "edgellm._cpu",
                      "Whether this processor can run edgellm._native.",
                      0,
                      methods,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&module); }
