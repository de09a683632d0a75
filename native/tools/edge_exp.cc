
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/os.h"
#include "base/thread_pool.h"
#include "edgellm/engine.h"
namespace edge {
extern double g_op_ns[16];
extern int64_t g_op_n;
}  // namespace edge
using namespace edge;
struct Cfg {
  int sched;
  int64_t unit, min_units;
};
static uint64_t read_all(const std::byte* data, size_t n) {
  const uint64_t* w = reinterpret_cast<const uint64_t*>(data);
  uint64_t l[8] = {};
  for (size_t i = 0; i < n / 8; i += 8)
    for (size_t j = 0; j < 8; ++j) l[j] ^= w[i + j];
  uint64_t a = 0;
  for (auto x : l) a ^= x;
  return a;
}
int main(int argc, char** argv) {
  std::vector<Cfg> cfgs;
  int n = atoi(argv[2]);
  int threads = 2;
  for (int i = 3; i < argc; ++i) {
    Cfg c;
    long long u, m;
    sscanf(argv[i], "%d,%lld,%lld", &c.sched, &u, &m);
    c.unit = u * 1024;
    c.min_units = m;
    cfgs.push_back(c);
  }
  edgellm::LoadOptions lo;
  lo.n_threads = threads;
  lo.verify = edgellm::LoadOptions{}.verify;
  auto model = edgellm::Model::load(argv[1], lo);
  int fd = open(argv[1], O_RDONLY);
  struct stat st;
  fstat(fd, &st);
  auto* file = (const std::byte*)mmap(nullptr, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
  edgellm::Session session(model, 64);
  std::vector<int32_t> prompt(16, 5);
  session.append(prompt);
  session.run(1e12);
  std::vector<std::vector<double>> ms(cfgs.size());
  std::vector<double> rd;
  const size_t unit = 96 << 10;
  const int64_t nu = st.st_size / unit;
  for (int i = 0; i < n; ++i) {
    for (size_t c = 0; c <= cfgs.size(); ++c) {
      int64_t t0 = monotonic_ns();
      if (c == cfgs.size()) {
        std::atomic<uint64_t> sink{0};
        g_sched = 1;
        parallel_for(threads, nu, [&](int64_t u, int) { sink ^= read_all(file + u * unit, unit); });
        rd.push_back((monotonic_ns() - t0) * 1e-6);
        continue;
      }
      g_sched = cfgs[c].sched;
      g_unit_bytes = cfgs[c].unit;
      g_min_units = cfgs[c].min_units;
      int32_t id = 7 + i;
      session.rewind(16);
      session.append({&id, 1});
      t0 = monotonic_ns();
      session.run(1e12);
      ms[c].push_back((monotonic_ns() - t0) * 1e-6);
    }
  }
  const char* names[] = {"embed+rope", "norm x32",   "qkv x16",  "attention x16",
                         "o x16",      "ffn_in x16", "down x16", "head"};
  const double mb[] = {0,
                       0,
                       16 * 3072 * 2048.0 * .5625e-6,
                       0,
                       16 * 2048 * 2048.0 * .5625e-6,
                       16 * 16384 * 2048.0 * .5625e-6,
                       16 * 8192 * 2048.0 * .5625e-6,
                       128256 * 2048.0 * .5625e-6};
  for (int i = 0; i < 8; ++i)
    printf("%-14s %.3f ms per step, %.2f GB/s\n", names[i], g_op_ns[i] * 1e-6 / double(g_op_n),
           mb[i] / (g_op_ns[i] * 1e-6 / double(g_op_n)));
  auto q = [](std::vector<double> v, double f) {
    std::sort(v.begin(), v.end());
    return v[size_t(f * (v.size() - 1))];
  };
  printf("read   p10 %.2f p25 %.2f median %.2f ms\n", q(rd, .1), q(rd, .25), q(rd, .5));
  for (size_t c = 0; c < cfgs.size(); ++c) {
    std::vector<double> share;
    for (size_t i = 0; i < ms[c].size(); ++i) share.push_back(rd[i] / ms[c][i]);
    printf(
        "%d,%lldK,%lld  p10 %.2f p25 %.2f median %.2f ms; share of read: p10/p10 %.3f p25/p25 %.3f "
        "paired median %.3f\n",
        cfgs[c].sched, (long long)cfgs[c].unit >> 10, (long long)cfgs[c].min_units, q(ms[c], .1),
        q(ms[c], .25), q(ms[c], .5), q(rd, .1) / q(ms[c], .1), q(rd, .25) / q(ms[c], .25),
        q(share, .5));
  }
}
