// Where a block of a row of activations stands.
#include "dialect.glsl"

const int kPanel = 16;
const int kBlockCols = 32;

int64_t block_index(Panels panels, int64_t row, int64_t block) {
  const int64_t panel = row / kPanel;
  const int64_t left = panels.n_rows - panel * kPanel;
  const int64_t panel_rows = left < kPanel ? left : kPanel;
  return panel * kPanel * panels.n_blocks + block * panel_rows + row % kPanel;
}
