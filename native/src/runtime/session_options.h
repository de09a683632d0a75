// What a session is made with.
#pragma once

#include <string>

namespace edge {

struct Adapter;
class DraftSource;
class PrefixTree;

struct SessionOptions {
  int n_ctx = 0;                     // >= 1
  const Adapter* adapter = nullptr;  // through which all tokens go; must outlive the session
  PrefixTree* tree = nullptr;        // of its cache: shares the pages of common prefixes
  std::string key = {};              // there: names all that pages depend on besides the ids
  const DraftSource* drafts = nullptr;  // a fresh() one of which the session drafts with
};

}  // namespace edge
