"""Make files of torch.save of many kinds, and what torch reads from them, for tests without torch.

    $ pip install torch
    $ python scripts/make_torch_files.py tests/golden/torch

Writes FOLDER/zip.bin and, in the format before torch 1.6, FOLDER/legacy.bin, with the same tensors:
of every type, transposed, with steps, of shared and expanded storages, scalar and empty.
expected.npz has the bytes of each as ``torch.load(weights_only=True)`` gives them, and its shape.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch


def tensors() -> OrderedDict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    row, table, expanded = normal(40), normal(6, 8), normal(2, 3)
    state = OrderedDict(
        float32=normal(2, 3, 4),
        float16=normal(3, 4).half(),
        bfloat16=normal(5, 2).bfloat16(),
        int64=torch.arange(7).expand(1, -1),
        int32=torch.arange(3, dtype=torch.int32),
        int16=torch.tensor([-1, 300], dtype=torch.int16),
        int8=torch.tensor([-5, 7], dtype=torch.int8),
        uint8=torch.tensor([255, 3], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(2.5),
        bfloat16_scalar=torch.tensor(1.5).bfloat16(),
        empty=torch.empty(0, 3),
        table=table,
        tied=table,
        transposed=table.T,
        block=table[2:5, 1:7:2],
        start_of_row=row[:10],
        middle_of_row=row[5:25].view(4, 5),
        steps_of_row=row[::3],
        permuted=normal(2, 3, 4).permute(2, 0, 1),
        expanded=expanded[:, :1].expand(2, 3),
        parameter=torch.nn.Parameter(normal(2, 2)),
    )
    state["名前 of no ASCII"] = normal(2)
    state._metadata = OrderedDict([("", {"version": 1}), ("a", {"version": 2})])  # as a module's
    return state


def to_bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    state = tensors()
    torch.save(state, folder / "zip.bin")
    torch.save(state, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    expected = {}
    for file in ("zip.bin", "legacy.bin"):
        found = torch.load(folder / file, weights_only=True)
        for name, tensor in found.items():
            content = to_bytes(tensor)
            assert np.array_equal(expected.setdefault(name, content), content)
            expected[f"{name}/shape"] = np.array(tensor.shape, np.int64)
            expected[f"{name}/dtype"] = np.array(str(tensor.dtype))
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main()
