"""Backends in libraries of their own: what a machine without one is told."""

from __future__ import annotations

import pytest

import edgellm


def test_cuda_without_its_library_is_a_device_error(demo_path, monkeypatch):
    monkeypatch.setenv("EDGELLM_CUDA_LIBRARY", "/nowhere/libedgellm_cuda.so")
    with pytest.raises(edgellm.DeviceError, match="/nowhere/libedgellm_cuda") as refused:
        edgellm.load(demo_path, backend="cuda")
    assert refused.value.code == "device_unavailable"
    assert "backend 'cpu'" in refused.value.message


def test_a_backend_that_nobody_knows_names_the_others(demo_path):
    with pytest.raises(edgellm.UnsupportedError, match="cpu, cuda"):
        edgellm.load(demo_path, backend="metal")
