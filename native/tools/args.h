// Command-line arguments of the tools: `--name value` pairs around positional words.
#pragma once

#include <charconv>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace edge_tools {

class Args {
 public:
  Args(int argc, char** argv) : words_(argv + 1, argv + argc) {}

  // Reads the number after `name` into value and takes both words out; no change if not given.
  template <class T>
  void number(std::string_view name, T& value) {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (words_[i] != name) continue;
      const std::string text = i + 1 < words_.size() ? words_[i + 1] : "";
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || end != text.data() + text.size()) {
        problem_ = std::string(name) + " needs a number";
        return;
      }
      words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i),
                   words_.begin() + static_cast<std::ptrdiff_t>(i) + 2);
      return;
    }
  }

  // The same of a word.
  void text(std::string_view name, std::string& value) {
    for (size_t i = 0; i + 1 < words_.size(); ++i) {
      if (words_[i] != name) continue;
      value = words_[i + 1];
      words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i),
                   words_.begin() + static_cast<std::ptrdiff_t>(i) + 2);
      return;
    }
  }

  bool flag(std::string_view name) {
    const size_t n_before = words_.size();
    std::erase(words_, name);
    return words_.size() != n_before;
  }

  // The words that are left: exactly n, none starting with '-'. Prints the usage otherwise.
  std::optional<std::vector<std::string>> positional(size_t n, const char* usage) {
    for (const std::string& word : words_) {
      if (word.starts_with("-") && problem_.empty()) problem_ = "unknown option " + word;
    }
    if (problem_.empty() && words_.size() == n) return words_;
    if (!problem_.empty()) std::fprintf(stderr, "%s\n", problem_.c_str());
    std::fprintf(stderr, "usage: %s\n", usage);
    return std::nullopt;
  }

 private:
  std::vector<std::string> words_;
  std::string problem_;
};

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

}  // namespace edge_tools
