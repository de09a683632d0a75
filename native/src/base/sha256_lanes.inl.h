// SHA-256 of EDGE_SHA256_LANES messages side by side, one per vector lane, on compiler vector
// types. Included once per instruction set inside a namespace of its own.

typedef uint32_t Word __attribute__((vector_size(4 * EDGE_SHA256_LANES)));

static inline Word rotr(Word x, int n) { return (x >> n) | (x << (32 - n)); }

// FIPS 180-4 section 6.2.2 over n_blocks of 64 bytes of every message. A lane reads a whole cache
// line at a time: leaves lie a power of two apart and would evict each other word by word.
static void compress_lanes(uint32_t (*states)[8], const uint8_t* const* messages, size_t n_blocks) {
  Word state[8];
  for (int i = 0; i < 8; ++i) {
    for (int lane = 0; lane < EDGE_SHA256_LANES; ++lane) state[i][lane] = states[lane][i];
  }
  for (size_t block = 0; block < n_blocks; ++block) {
    Word w[16];
    for (int lane = 0; lane < EDGE_SHA256_LANES; ++lane) {
      uint32_t words[16];
      memcpy(words, messages[lane] + 64 * block, sizeof words);
      for (int t = 0; t < 16; ++t) w[t][lane] = __builtin_bswap32(words[t]);
    }
    Word a = state[0], b = state[1], c = state[2], d = state[3];
    Word e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; ++t) {
      if (t >= 16) {
        const Word x = w[(t + 1) & 15];
        const Word y = w[(t + 14) & 15];
        w[t & 15] += (rotr(x, 7) ^ rotr(x, 18) ^ (x >> 3)) + w[(t + 9) & 15] +
                     (rotr(y, 17) ^ rotr(y, 19) ^ (y >> 10));
      }
      const Word t1 = h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & f) ^ (~e & g)) +
                      kSha256Round[t] + w[t & 15];
      const Word t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = d + t1;
      d = c;
      c = b;
      b = a;
      a = t1 + t2;
    }
    const Word add[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += add[i];
  }
  for (int i = 0; i < 8; ++i) {
    for (int lane = 0; lane < EDGE_SHA256_LANES; ++lane) states[lane][i] = state[i][lane];
  }
}
