"""The parts of the chat screen, one file each."""
