"""Models as graphs of fixed shapes, run by what vendors of NPUs provide. docs/NPU.md."""

DESCRIPTION = "bundle.json"  # of a bundle, what its folder has besides the files it lists
