// fork() with models open: the locks of all of them are taken before the fork and dropped on both
// sides after it, so that the child never inherits a lock whose owner it does not have, or a KV
// cache half-way through a change. A fork therefore waits for the step under way (at most a slice).
#pragma once

#include <mutex>

namespace edge::api {

// Registers a model's locks; both must outlive the forget_locks() call with the same `step`.
void register_locks(std::mutex* step, std::mutex* cache);
void forget_locks(std::mutex* step);

}  // namespace edge::api
