#!/usr/bin/env python3
"""Writes python.safetensors, read by safetensors_test.cc.

The file is made by the reference implementation of the format, so that our
reader is compared with a program that we did not write:

    pip install torch safetensors
    tests/model/data/make_data.py

Element i of the n-th tensor is ((7 * i + n) % 13 - 6) / 4 (times 4 for I32),
which every dtype holds exactly.
"""

import pathlib

import safetensors.torch
import torch

SHAPES = [
    ("scalar", (), torch.float32),
    ("vector", (5,), torch.float16),
    ("matrix", (3, 4), torch.bfloat16),
    ("cube", (2, 3, 2), torch.int32),
    ("empty", (0, 3), torch.float32),
    ("größe.名前", (2, 2), torch.bfloat16),
]


def tensor(n, shape, dtype):
    count = 1
    for size in shape:
        count *= size
    scale = 1 if dtype == torch.int32 else 4
    values = [((7 * i + n) % 13 - 6) / scale for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(shape).to(dtype)


safetensors.torch.save_file(
    {name: tensor(n, shape, dtype) for n, (name, shape, dtype) in enumerate(SHAPES)},
    pathlib.Path(__file__).with_name("python.safetensors"),
    metadata={"format": "pt", "note": "made by make_data.py"},
)
