"""The store: models by name, in one directory of this machine.

Models are files named by their digest, names and tags one small index. Writers take turns by a
lock, readers take none: every change is one rename. docs/STORE.md describes it; no module here
imports the native module, and only `hub.py` opens connections.
"""

from __future__ import annotations
