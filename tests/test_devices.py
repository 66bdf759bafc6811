"""Devices: the precision of simulated GPUs, batch sizes, and the recognition of out-of-memory errors."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from nbt.devices import autocast, inference_batch_size, out_of_memory, precision

GPU = torch.device("cuda:1")
# From torch 2.8; earlier versions raise a RuntimeError for failed CUDA calls.
AcceleratorError: type[Exception] = getattr(torch, "AcceleratorError", RuntimeError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB"), True),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (AcceleratorError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_errors_are_recognised(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("capability", "hip", "expected"),
    [((7, 5), None, "float32"), ((8, 0), None, "bf16"), ((9, 0), None, "bf16"), ((7, 5), "6.4", "bf16")],
)
def test_bf16_is_used_on_gpus_that_support_it(
    capability: tuple[int, int], hip: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability if device == GPU else (0, 0))
    monkeypatch.setattr(torch.version, "hip", hip)
    assert precision(GPU) == expected
    calls: list[tuple[str, torch.dtype]] = []
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: nullcontext(calls.append((kind, dtype))))
    with autocast(GPU):
        assert calls == ([("cuda", torch.bfloat16)] if expected == "bf16" else [])


def test_a_cpu_uses_float32() -> None:
    assert precision(torch.device("cpu")) == "float32"
    with autocast(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("max_batch_size", "size", "expected"),
    [(128, 28, 128), (128, 224, 128), (128, 448, 32), (64, 1024, 3), (64, 4096, 1)],
)
def test_batches_of_large_images_are_smaller(max_batch_size: int, size: int, expected: int) -> None:
    assert inference_batch_size(max_batch_size, size) == expected
