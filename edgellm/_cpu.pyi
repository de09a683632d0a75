"""What native/python/cpu_probe.cc exports."""

def missing() -> list[str]:
    """Names of the instruction sets that edgellm._native needs and this processor lacks."""
