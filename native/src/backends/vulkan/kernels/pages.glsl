// Where kernels find keys and values: the page of a position, and the parts of a kv head in it
// (kernels/kv_format.h, gpu/pages.inl.h).
#include "dialect.glsl"

const int kPlaneBytes = 4 * kPageTokens;

// The kv head `number` of those of a layer that follow each other.
KvPart head_of(PagesArgs pages, bool is_first, int number) {
  KvPart head;
  if (is_first) {
    head = pages.first[number % 2];
  } else {
    head = pages.other[number % 2];
  }
  const uint64_t shift = uint64_t(number / 2 * 2) * head.n_bytes;
  head.keys += shift;
  head.values += shift;
  head.key_scales += shift;
  head.value_scales += shift;
  return head;
}

// Of four positions that stand together, where the one of place `place` does.
int value_byte(int place) { return place % 4 == 1 ? 2 : place % 4 == 2 ? 1 : place % 4; }

// Where a token that the row sees stands.
int slot_of(Row_ptr row, int position) {
  const int n_tail = row.v.n_tail;
  const bool is_before = n_tail == 0 || position < row.v.tail[0];
  return is_before ? position : row.v.tail[position - row.v.tail[0]];
}
