"""Fleets, on the device: which variant it gets, whether it may be trusted, and how it is replaced.

index.py is what a fleet's artefacts say of themselves, trust.py who may say so, source.py where
they are, delta.py what has to be fetched of them, device.py the slots of a device. docs/FLEET.md
describes all of it. Only `remote.py` opens connections, and only for a location that is a URL.
"""

from __future__ import annotations
