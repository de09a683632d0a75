// What steps took, from one process to the next: a small text file for each key in a directory that
// is nobody else's (base/private_directory.h). Losing it costs a few slower steps, so nothing here
// fails: what cannot be read, or is not exactly what was written, is not there.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "speculation/cost_table.h"

namespace edge {

// `key` names all that times depend on: CPU, threads, level of instructions, root of the model.
std::optional<CostTable> load_costs(const std::string& directory, std::string_view key,
                                    CostShape shape = {});
void save_costs(const std::string& directory, std::string_view key, const CostTable& costs);

}  // namespace edge
