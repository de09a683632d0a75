#include "backends/npu/ort_graphs.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace edge::npu {
namespace {

constexpr std::string_view kOption = "provider.";

std::string setting_of(const GraphSettings& settings, std::string_view name) {
  const auto found = std::ranges::find(settings, name, &GraphSettings::value_type::first);
  return found == settings.end() ? "" : found->second;
}

}  // namespace

OrtGraphs::OrtGraphs(Bundle bundle) : bundle_(std::move(bundle)), memory_(bundle_) {
  // A session of each shape holds the constants for itself.
  const auto n_shapes =
      static_cast<size_t>(std::ranges::count(bundle_.graphs, 0, &GraphPart::part));
  bundle_.facts.n_bytes = memory_.n_bytes() + n_shapes * bundle_.file_bytes;
}

Result<std::unique_ptr<StepGraphs>> OrtGraphs::open(const GraphSettings& settings) {
  const std::string folder = setting_of(settings, "bundle");
  if (folder.empty()) return {Code::kInvalidArgument, "there is no setting 'bundle'"};
  EDGE_ASSIGN_OR_RETURN(Bundle bundle, read_bundle(folder, setting_of(settings, "generation")));
  std::unique_ptr<OrtGraphs> graphs(new OrtGraphs(std::move(bundle)));
  EDGE_RETURN_IF_ERROR(graphs->take(settings));
  EDGE_RETURN_IF_ERROR(graphs->check_target());
  return std::unique_ptr<StepGraphs>(std::move(graphs));
}

Status OrtGraphs::take(const GraphSettings& settings) {
  for (const auto& [name, value] : settings) {
    if (name == "bundle" || name == "generation") continue;
    if (name == "library") {
      library_ = value;
    } else if (name == "provider") {
      provider_.name = value;
    } else if (name == "provider_library") {
      provider_.library = value;
    } else if (name == "threads") {
      std::from_chars(value.data(), value.data() + value.size(), n_threads_);
    } else if (name.starts_with(kOption)) {
      provider_.options.emplace_back(name.substr(kOption.size()), value);
    } else {
      return {Code::kInvalidArgument, "there is no setting '" + name + "'"};
    }
  }
  return {};
}

// Only the target for it runs on the CPU provider: others would be right and their speed a lie.
Status OrtGraphs::check_target() const {
  const std::string& target = bundle_.facts.target;
  if (target == "ort" || !provider_.name.empty()) return {};
  return {Code::kFeatureUnsupported,
          "graphs for '" + target +
              "' are not for onnxruntime's CPU provider, and no other is "
              "given; convert with --target npu:ort, or run them with edgellm.npu.model.NpuModel"};
}

Status OrtGraphs::start() {
  EDGE_RETURN_IF_ERROR(memory_.allocate());
  EDGE_ASSIGN_OR_RETURN(Ort* const ort, Ort::open(library_));
  const OrtFunctions& f = ort->functions();
  OwnedOptions options(*ort);
  EDGE_RETURN_IF_ERROR(ort->check(f.create_session_options(options.out())));
  EDGE_RETURN_IF_ERROR(ort->check(f.set_log_severity(options.get(), 3)));
  EDGE_RETURN_IF_ERROR(ort->check(f.set_threads(options.get(), n_threads_)));
  if (!provider_.name.empty()) {
    EDGE_RETURN_IF_ERROR(ort->use_provider(options.get(), provider_));
  }
  for (const GraphPart& part : bundle_.graphs) {
    EDGE_ASSIGN_OR_RETURN(auto graph, Graph::open(*ort, options.get(), part, bundle_));
    EDGE_RETURN_IF_ERROR(graph->bind(memory_, kBuffers));
    if (part.part == 0) steps_.push_back({part.n_rows, part.n_past, {}});
    steps_.back().parts.push_back(std::move(graph));
  }
  return {};
}

int OrtGraphs::bucket_for(int n_slots) const {
  const auto found = std::ranges::find_if(
      bundle_.graphs, [&](const GraphPart& part) { return part.n_past >= n_slots; });
  return found == bundle_.graphs.end() ? 0 : found->n_past;
}

// Of a bucket, the step that takes the most of the pending rows with the least waste.
OrtGraphs::Step& OrtGraphs::choose(int n_pending, int n_past) {
  Step* chosen = nullptr;
  for (Step& step : steps_) {
    if (step.n_past != n_past || (chosen != nullptr && chosen->n_rows >= n_pending)) continue;
    chosen = &step;
  }
  return *chosen;
}

Result<int> OrtGraphs::run(const GraphRun& run) {
  const int n_pending = static_cast<int>(run.ids.size());
  const int n_past = bucket_for(run.n_before);
  if (n_past == 0 || run.n_before + 1 > bundle_.facts.capacity) {
    return {Code::kContextOverflow,
            std::to_string(run.n_before + 1) + " tokens, but the graphs were made for " +
                std::to_string(bundle_.facts.capacity) + "; convert with a larger --npu-context"};
  }
  Step& step = choose(n_pending, n_past);
  const int n_rows = std::min({n_pending, step.n_rows, bundle_.facts.capacity - run.n_before});
  memory_.lay_out(run.buffer, n_past);
  memory_.fill_inputs(step.parts.front()->part(), run.n_before,
                      run.ids.first(static_cast<size_t>(n_rows)), run.x);
  for (const auto& part : step.parts) EDGE_RETURN_IF_ERROR(part->run(run.buffer));
  last_ = &step;
  EDGE_RETURN_IF_ERROR(check_finite(step, run.n_before, n_rows));
  memory_.lay_out(run.buffer, std::max(n_past, bucket_for(run.n_before + n_rows)));
  memory_.keep(run.buffer, run.n_before, step.n_rows, n_rows);
  return n_rows;
}

Status OrtGraphs::check_finite(const Step& step, int n_before, int n_rows) const {
  for (int row = 0; row < n_rows; ++row) {
    const int n_cols = bundle_.facts.has_head ? bundle_.facts.n_vocab : bundle_.facts.d_model;
    const std::span values(output(row), static_cast<size_t>(n_cols));
    if (std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) continue;
    return {Code::kNumeric, "graph '" + step.parts.back()->part().name +
                                "' gave a value that is not finite at token " +
                                std::to_string(n_before + row)};
  }
  return {};
}

const float* OrtGraphs::output(int row) const {
  const int n_cols = bundle_.facts.has_head ? bundle_.facts.n_vocab : bundle_.facts.d_model;
  return memory_.outputs(static_cast<int>(last_->parts.size())) +
         static_cast<size_t>(row) * static_cast<size_t>(n_cols);
}

void OrtGraphs::load_new(const GraphRow& row, float* key, float* value) const {
  memory_.load_new(row, last_->n_rows, key, value);
}

void OrtGraphs::store_past(int buffer, const GraphRow& row, const float* key, const float* value) {
  if (row.slot >= memory_.n_past(buffer)) memory_.lay_out(buffer, bucket_for(row.slot + 1));
  memory_.store_past(buffer, row, key, value);
}

}  // namespace edge::npu
