"""Files of arrays, beside the safetensors library in both directions."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from rlray.train.tensor_file import read_tensors, write_tensors
from tests.train.test_state_tree import random_array


def random_arrays(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = random.Random(seed)
    return {
        f"{'/'.join(rng.choices('abcä', k=3))}{i}": random_array(rng).copy(order="C") for i in range(rng.randrange(12))
    }


def same_bits(one: dict[str, np.ndarray[Any, Any]], two: dict[str, np.ndarray[Any, Any]]) -> bool:
    return one.keys() == two.keys() and all(
        (one[n].dtype, one[n].shape, one[n].tobytes()) == (two[n].dtype, two[n].shape, two[n].tobytes()) for n in one
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_library_reads_what_we_write_and_we_what_it_writes(tmp_path: Path, seed: int) -> None:
    arrays = random_arrays(seed)
    write_tensors(tmp_path / "ours", arrays)
    safetensors.numpy.save_file(arrays, tmp_path / "theirs")
    assert same_bits(safetensors.numpy.load_file(tmp_path / "ours"), arrays)
    assert same_bits(read_tensors(tmp_path / "theirs"), arrays)
    assert same_bits(read_tensors(tmp_path / "ours"), arrays)
    assert all(array.flags.aligned for array in read_tensors(tmp_path / "ours").values())


def test_writing_to_what_was_read_changes_no_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", {"a": np.zeros(5)})
    read_tensors(tmp_path / "f")["a"][:] = 1
    assert read_tensors(tmp_path / "f")["a"].tolist() == [0] * 5


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", {})
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "f", {})


def header(entry: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"\xff" * 40,
        struct.pack("<Q", 3) + b"[1]",
        header({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, b"1234"),
        header({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, b"12345678"),
        header({"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}, b"12345678"),
        header({"dtype": "F32", "shape": [2]}, b"12345678"),
    ],
    ids=range(7),
)
def test_what_is_no_such_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of arrays"):
        read_tensors(tmp_path / "f")
