// A bundle of graphs for fake_ort.cc, of the tiny model, in a folder that goes with the scope.
#pragma once

#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/sha256.h"

namespace edge::test {

struct BundleWish {
  std::vector<int> rows = {1, 4, 16};
  std::vector<int> slots = {32, 128};
  bool is_half = true;
  std::array<int, 2> windows = {0, 0};
  bool is_split = false;  // a part for each layer
  std::string target = "ort";
  std::string trouble = {};                      // a line in every graph
  std::map<std::string, std::string> lies = {};  // in graphs: line -> another line
  std::vector<std::string> generations = {};     // each with the graphs in a folder of its own
};

class BundleFolder {
 public:
  explicit BundleFolder(const BundleWish& wish = {}) : wish_(wish) {
    static int n_folders = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("edge_bundle_" + std::to_string(getpid()) + "_" + std::to_string(n_folders++));
    std::filesystem::create_directories(path_);
    for (const int n_slots : wish.slots) {
      for (const int n_rows : wish.rows) {
        const int n_parts = wish.is_split ? 2 : 1;
        for (int part = 0; part < n_parts; ++part) write_graph(n_rows, n_slots, part);
      }
    }
    write("bundle.json", description());
  }
  ~BundleFolder() { std::filesystem::remove_all(path_); }
  BundleFolder(const BundleFolder&) = delete;
  BundleFolder& operator=(const BundleFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string description() const {
    std::string layers;
    for (const int window : wish_.windows) {
      layers += std::string(layers.empty() ? "" : ",") +
                R"({"n_kv_heads":2,"head_dim":16,"window":)" + std::to_string(window) + "}";
    }
    return R"({"version":1,"target":")" + wish_.target +
           R"(","model":{"n_vocab":96,"d_model":64,"n_positions":0,"masked":-10000.0,)"
           R"("stateful":0,"eos_ids":[2],"kv_dtype":")" +
           (wish_.is_half ? "f16" : "f32") + R"(","layers":[)" + layers +
           R"(],"rotations":{"full":{"factor":1.0,"inv_freq":[1,0.5,0.25,0.1,0.05,0.01,0.005,0]}}},)"
           R"("graphs":[)" +
           graphs_ + R"(],"files":[)" + files_ + "]," + generations() +
           R"("settings":{},"report":{}})";
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  std::string first_graph() const { return "r1_s" + std::to_string(wish_.slots.front()) + "_p0"; }

 private:
  struct Graph {
    std::string inputs, outputs, lines;
  };

  void add(Graph& graph, bool is_output, const std::string& name, int type,
           const std::vector<int>& shape) const {
    std::string& list = is_output ? graph.outputs : graph.inputs;
    list += (list.empty() ? "\"" : ",\"") + name + "\"";
    std::string line = (is_output ? "output " : "input ") + name + " " + std::to_string(type);
    for (const int n : shape) line += " " + std::to_string(n);
    const auto lie = wish_.lies.find(line);
    graph.lines += (lie == wish_.lies.end() ? line : lie->second) + "\n";
  }

  void write_graph(int n_rows, int n_slots, int part) {
    const int first = wish_.is_split ? part : 0, end = wish_.is_split ? part + 1 : 2;
    const int kv = wish_.is_half ? 10 : 1;
    Graph graph;
    first == 0 ? add(graph, false, "ids", 6, {n_rows}) : add(graph, false, "x", 1, {n_rows, 64});
    add(graph, false, "cos", 1, {n_rows, 16});
    add(graph, false, "sin", 1, {n_rows, 16});
    std::string masks;
    for (int layer = first; layer < end; ++layer) {
      const int window = wish_.windows[static_cast<size_t>(layer)];
      const std::string mask = window > 0 ? "mask." + std::to_string(window) : "mask";
      if (masks.find(mask + ";") == std::string::npos) {
        add(graph, false, mask, 1, {n_rows, n_slots + n_rows});
        masks += mask + ";";
      }
      for (const std::string half : {"k.", "v."}) {
        const std::string name = half + std::to_string(layer);
        add(graph, false, "past_" + name, kv, {2, n_slots, 16});
        add(graph, true, "new_" + name, kv, {2, n_rows, 16});
      }
      graph.lines += "layer " + std::to_string(layer) + " " + mask + "\n";
    }
    end == 2 ? add(graph, true, "logits", 1, {n_rows, 96})
             : add(graph, true, "hidden", 1, {n_rows, 64});
    if (!wish_.trouble.empty()) graph.lines += wish_.trouble + "\n";
    const std::string name =
        "r" + std::to_string(n_rows) + "_s" + std::to_string(n_slots) + "_p" + std::to_string(part);
    if (wish_.generations.empty()) write_file(name, graph.lines);
    for (const std::string& one : wish_.generations)
      write_file("v" + one + "/" + name, graph.lines);
    graphs_ += std::string(graphs_.empty() ? "" : ",") + R"({"name":")" + name + R"(","entry":")" +
               name + R"(","n_rows":)" + std::to_string(n_rows) + R"(,"n_past":)" +
               std::to_string(n_slots) + R"(,"part":)" + std::to_string(part) + R"(,"inputs":[)" +
               graph.inputs + R"(],"outputs":[)" + graph.outputs + "]}";
  }

  void write_file(const std::string& name, const std::string& text) {
    if (name.find("..") == std::string::npos) {
      std::filesystem::create_directories((path_ / name).parent_path());
      write(name, text);
    }
    const std::string digest = to_hex(sha256(std::as_bytes(std::span(text))));
    files_ += std::string(files_.empty() ? "" : ",") + R"({"name":")" + name + R"(","n_bytes":)" +
              std::to_string(text.size()) + R"(,"sha256":")" + digest + R"("})";
  }

  std::string generations() const {
    std::string names;
    for (const std::string& one : wish_.generations) {
      names += (names.empty() ? "\"" : ",\"") + one + "\"";
    }
    return names.empty() ? "" : R"("generations":[)" + names + "],";
  }

  const BundleWish wish_;
  std::filesystem::path path_;
  std::string graphs_, files_;
};

}  // namespace edge::test
