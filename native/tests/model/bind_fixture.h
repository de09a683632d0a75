// Binding a file made of fixture tensors, for the tests of model/weights.h.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "edge_fixture.h"
#include "model/weights.h"

namespace edge::test {

inline FixtureTensor& named(std::vector<FixtureTensor>& tensors, const std::string& name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const FixtureTensor& t) { return t.name == name; });
  REQUIRE(found != tensors.end());
  return *found;
}

// The status of binding these tensors; the file itself must be valid.
inline Status bind_status(const std::vector<FixtureTensor>& tensors, const ModelSpec& spec) {
  auto file = open_fixture(tensors, "{}");
  REQUIRE_MESSAGE(file.is_ok(), file.status().message());
  return Weights::bind(*file.value(), spec).status();
}

}  // namespace edge::test
