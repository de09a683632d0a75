"""Models as graphs of fixed shapes, run by what vendors of NPUs provide. docs/NPU.md."""
