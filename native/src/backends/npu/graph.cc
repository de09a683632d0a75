#include "backends/npu/graph.h"

#include "format/json.h"

namespace edge::npu {
namespace {

int ort_type(ElementType type) {
  switch (type) {
    case ElementType::kInt32:
      return kOrtInt32;
    case ElementType::kHalf:
      return kOrtHalf;
    case ElementType::kFloat:
      break;
  }
  return kOrtFloat;
}

size_t bytes_of(std::span<const int64_t> shape, ElementType type) {
  size_t n_bytes = type == ElementType::kHalf ? 2 : 4;
  for (const int64_t n : shape) n_bytes *= static_cast<size_t>(n);
  return n_bytes;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text;
  for (const int64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return '[' + text + ']';
}

}  // namespace

Result<std::unique_ptr<Graph>> Graph::open(const Ort& ort, const OrtSessionOptions* options,
                                           const GraphPart& part, const Bundle& bundle) {
  std::unique_ptr<Graph> graph(new Graph(ort, part, bundle));
  const auto path = native_path(part.path);
  const auto open = [&]() -> Status {
    EDGE_RETURN_IF_ERROR(ort.check(
        ort.functions().create_session(ort.env(), path.c_str(), options, graph->session_.out())));
    EDGE_RETURN_IF_ERROR(graph->check_side(false));
    return graph->check_side(true);
  };
  if (const Status status = open(); !status.is_ok()) return status.with_context(part.path);
  return graph;
}

// The inputs of the graph are those that the bundle lists; of the outputs all that are listed.
Status Graph::check_side(bool is_output) const {
  const OrtFunctions& f = ort_.functions();
  size_t n = 0;
  EDGE_RETURN_IF_ERROR(ort_.check((is_output ? f.n_outputs : f.n_inputs)(session_.get(), &n)));
  const std::vector<std::string>& listed = is_output ? part_.outputs : part_.inputs;
  std::vector<std::string> found;
  for (size_t i = 0; i < n; ++i) {
    char* name = nullptr;
    EDGE_RETURN_IF_ERROR(ort_.check(
        (is_output ? f.output_name : f.input_name)(session_.get(), i, ort_.allocator(), &name)));
    found.emplace_back(name);
    EDGE_RETURN_IF_ERROR(ort_.check(f.free_text(ort_.allocator(), name)));
    if (has_name(listed, found.back())) {
      EDGE_RETURN_IF_ERROR(check_one(is_output, i, found.back()));
    } else if (!is_output) {
      return {Code::kTensorUnexpected,
              "the graph takes " + printable(found.back()) + ", which the bundle does not list"};
    }
  }
  for (const std::string& name : listed) {
    if (has_name(found, name)) continue;
    return {Code::kTensorMissing, "the graph has no " + printable(name)};
  }
  return {};
}

Status Graph::check_one(bool is_output, size_t index, const std::string& text) const {
  const OrtFunctions& f = ort_.functions();
  OwnedType type(ort_);
  EDGE_RETURN_IF_ERROR(
      ort_.check((is_output ? f.output_type : f.input_type)(session_.get(), index, type.out())));
  const OrtTensorInfo* info = nullptr;
  EDGE_RETURN_IF_ERROR(ort_.check(f.tensor_info(type.get(), &info)));
  if (info == nullptr) return {Code::kTensorDtype, text + " is no tensor"};
  int element = 0;
  size_t n_dims = 0;
  EDGE_RETURN_IF_ERROR(ort_.check(f.element_type(info, &element)));
  EDGE_RETURN_IF_ERROR(ort_.check(f.n_dims(info, &n_dims)));
  std::vector<int64_t> shape(n_dims);
  EDGE_RETURN_IF_ERROR(ort_.check(f.dims(info, shape.data(), n_dims)));
  EDGE_ASSIGN_OR_RETURN(const GraphName name, parse_name(text, bundle_));
  const int wanted = ort_type(type_of(name, bundle_));
  if (element != wanted) {
    return {Code::kTensorDtype, text + " has elements of onnxruntime's type " +
                                    std::to_string(element) + ", not " + std::to_string(wanted)};
  }
  const std::vector<int64_t> right = shape_of(name, part_, bundle_);
  if (shape == right) return {};
  return {Code::kTensorShape,
          text + " is " + shape_text(shape) + ", but the bundle says " + shape_text(right)};
}

Status Graph::bind(const StepMemory& memory, int n_buffers) {
  for (int buffer = 0; buffer < n_buffers; ++buffer) {
    OwnedBinding& binding = bindings_.emplace_back(ort_);
    EDGE_RETURN_IF_ERROR(
        ort_.check(ort_.functions().create_binding(session_.get(), binding.out())));
    for (const std::string& text : part_.inputs) {
      EDGE_RETURN_IF_ERROR(bind_one(memory, buffer, text, false));
    }
    for (const std::string& text : part_.outputs) {
      EDGE_RETURN_IF_ERROR(bind_one(memory, buffer, text, true));
    }
  }
  return {};
}

Status Graph::bind_one(const StepMemory& memory, int buffer, const std::string& text,
                       bool is_output) {
  EDGE_ASSIGN_OR_RETURN(const GraphName name, parse_name(text, bundle_));
  const std::vector<int64_t> shape = shape_of(name, part_, bundle_);
  const ElementType type = type_of(name, bundle_);
  const OrtFunctions& f = ort_.functions();
  OwnedValue value(ort_);
  EDGE_RETURN_IF_ERROR(ort_.check(
      f.create_tensor(ort_.memory(), memory.at(name, buffer, part_.part), bytes_of(shape, type),
                      shape.data(), shape.size(), ort_type(type), value.out())));
  OrtIoBinding* const binding = bindings_.back().get();
  EDGE_RETURN_IF_ERROR(
      ort_.check((is_output ? f.bind_output : f.bind_input)(binding, text.c_str(), value.get())));
  values_.push_back(std::move(value));
  return {};
}

Status Graph::run(int buffer) {
  const OrtIoBinding* const binding = bindings_[static_cast<size_t>(buffer)].get();
  return ort_.check(ort_.functions().run_with_binding(session_.get(), nullptr, binding))
      .with_context("graph " + printable(part_.name));
}

}  // namespace edge::npu
