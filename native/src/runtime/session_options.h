// What a session is made with.
#pragma once

#include <string>

namespace edge {

struct Adapter;
class PrefixTree;

struct SessionOptions {
  int n_ctx = 0;                     // >= 1
  const Adapter* adapter = nullptr;  // through which all tokens go; must outlive the session
  PrefixTree* tree = nullptr;        // of its cache: shares the pages of common prefixes
  std::string key = {};              // there: names all that pages depend on besides the ids
};

}  // namespace edge
