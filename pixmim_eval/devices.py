"""Which device computes, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

from pixmim_eval.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_device(device: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda". Raises InputError where cuda is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device", expected="a CUDA GPU", found="none", where="--device cuda", fix="Take --device cpu or auto."
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def resolve_precision(device: str, precision: Precision) -> Precision:
    """ "fp32", "bf16" or "fp16" for these or "auto", which is bf16 where the processor or GPU computes in it.

    Raises:
        InputError: fp16 on the CPU.
    """
    device = resolve_device(device)
    if precision == "auto":
        return "bf16" if computes_bfloat16(device) else "fp32"
    if precision == "fp16" and device == "cpu":
        raise InputError(
            "precision", expected="fp32 or bf16 on the CPU", found="fp16", where="--precision", fix="Take fp32."
        )
    return precision


def computes_bfloat16(device: str) -> bool:
    """Whether bf16 products run at full speed: Ampere or later, AVX-512 BF16 or AMX; emulation does not count."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private in torch, so they may be absent
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)
