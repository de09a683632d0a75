// The Hadamard rotation of a head's channels: it spreads one large channel over all of them, so
// that a scale for all loses less of the others (QuaRot, Ashkboos et al. 2024, arXiv:2404.00456).
#pragma once

namespace edge {

// heads: [n_heads][head_dim], in place. Blocks of the largest power of two n that divides head_dim
// become H x / sqrt(n), H the Hadamard matrix in natural order: sums and differences at distances
// 1, 2, 4, .., n / 2, then one product with float(1 / sqrt(n)). Its own inverse but for rounding;
// there is no sum whose order could differ, so all compilations give the same bits.
void hadamard(float* heads, int n_heads, int head_dim);

}  // namespace edge
