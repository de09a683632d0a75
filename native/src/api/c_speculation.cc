// c_api.h: speculation of sessions.
#include "api/c_support.h"

using edge::capi::guarded;
using edge::capi::refuse;
using edge::capi::required;
using edge::capi::write_struct;

edgellm_status edgellm_session_set_speculation(edgellm_session* session, int32_t is_on) {
  return guarded([&] {
    if (is_on != 0 && is_on != 1)
      refuse("is_on is " + std::to_string(is_on) + "; it must be 0 or 1");
    required(session, "session").session.set_speculation(is_on == 1);
  });
}

edgellm_status edgellm_session_get_drafter_stats(const edgellm_session* session, size_t index,
                                                 edgellm_drafter_stats* stats, size_t* n_drafters) {
  return guarded([&] {
    required(n_drafters, "n_drafters");
    const edgellm::SessionStats facts = required(session, "session").session.stats();
    *n_drafters = facts.drafters.size();
    if (index >= facts.drafters.size()) return;
    const edgellm::DrafterStats& drafter = facts.drafters[index];
    edgellm_drafter_stats out = EDGELLM_DRAFTER_STATS_INIT;
    drafter.name.copy(out.name, sizeof out.name - 1);
    out.n_drafted_tokens = drafter.n_drafted;
    out.n_accepted_tokens = drafter.n_accepted;
    write_struct(out, stats, "stats");
  });
}
