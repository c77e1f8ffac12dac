"""What travels without a copy: torch tensors, pandas and Arrow tables; and what is said to who writes to an array."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import rlray
from rlray.core.serialization import deserialize, serialize
from tests.support import run_driver

torch = pytest.importorskip("torch", reason="torch is not installed")

pytestmark = pytest.mark.usefixtures("cluster")

N = 300_000  # elements: more than travels inside messages


BIG = torch.arange(N, dtype=torch.float32)
TENSORS = {
    "large": BIG,
    "small": torch.arange(10),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "transposed": BIG.reshape(100, -1).T,
    "strided": BIG[1000:200_000:3],
    "expanded": BIG.expand(2, N),
    "bfloat16": BIG.to(torch.bfloat16),
    "float16": BIG.to(torch.float16),
    "uint16": BIG.to(torch.uint8).to(torch.uint16),
    "bool": BIG > 5,
    "complex": torch.complex(BIG, -BIG),
    "conjugated": torch.complex(BIG, -BIG).conj(),
    "parameter": torch.nn.Parameter(BIG.clone()),
    "requires_grad": BIG.clone().requires_grad_(),
    "channels_last": torch.ones(2, 3, 200, 200).to(memory_format=torch.channels_last),
    "sparse": torch.eye(1000).to_sparse(),
}


def dense(tensor: Any) -> Any:
    return tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_the_same_after_the_journey(name: str) -> None:
    """And nobody is warned of anything: warnings are errors here."""
    tensor = TENSORS[name]
    for out in (rlray.get(rlray.put(tensor)), rlray.get(rlray.remote(lambda x: x).remote(tensor))):
        assert type(out) is type(tensor)
        assert (out.dtype, out.shape, out.layout) == (tensor.dtype, tensor.shape, tensor.layout)
        assert out.requires_grad == tensor.requires_grad
        if tensor.layout == torch.strided:
            assert out.stride() == tensor.stride()
        assert torch.equal(dense(out), dense(tensor))


def test_a_tensors_memory_is_not_copied_into_the_pickle_nor_out_of_the_store() -> None:
    tensor = torch.arange(N)
    whole = serialize({"deep": [tensor]})
    assert len(whole.data) < 1000
    [buffer] = whole.buffers
    assert np.frombuffer(buffer, np.uint8).__array_interface__["data"][0] == tensor.data_ptr()
    out = deserialize(whole.data, [memoryview(bytearray(buffer))])
    assert torch.equal(out["deep"][0], tensor)


def test_views_of_one_storage_still_share_it() -> None:
    base = torch.zeros(N)
    value = {"all": base, "part": base[10:20], "again": base, "matrix": base.reshape(100, -1)}
    assert len(serialize(value).buffers) == 1
    for out in (rlray.get(rlray.put(value)), rlray.get(rlray.remote(lambda v: v).remote(value))):
        assert out["all"] is out["again"]
        out["part"][0] = 5
        assert out["all"][10] == 5
        assert out["matrix"][0, 10] == 5
    assert base[10] == 0


def test_writing_to_a_tensor_is_seen_by_nobody_else() -> None:
    ref = rlray.put(torch.ones(N))
    first, second = rlray.get(ref), rlray.get(ref)
    first.add_(5)
    first[-1] = 0
    third = rlray.get(ref)
    assert first[:3].tolist() == [6, 6, 6]
    assert second[:3].tolist() == third[:3].tolist() == [1, 1, 1]

    @rlray.remote
    def scribble(tensor: Any) -> float:
        tensor.zero_()
        return float(tensor.sum())

    assert rlray.get(scribble.remote(ref)) == 0
    assert float(rlray.get(ref).sum()) == N


def test_a_tensor_outlives_its_reference_and_its_memory_is_not_used_again_meanwhile() -> None:
    tensors = [rlray.get(rlray.put(torch.full((N,), i))) for i in range(4)]
    parts = [tensor[5:] for tensor in tensors]
    del tensors
    gc.collect()
    for _ in range(20):
        rlray.put(np.full(N, 99.0))
    assert [(int(part.min()), int(part.max())) for part in parts] == [(i, i) for i in range(4)]


def test_many_tensors_at_once_hold_no_descriptors() -> None:
    ref = rlray.put(torch.arange(N))
    kept = [rlray.get(ref) for _ in range(3000)]
    assert all(int(tensor[-1]) == N - 1 for tensor in kept[::500])


def test_modules_and_their_states_travel_without_a_copy() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(400, 300), torch.nn.ReLU(), torch.nn.Linear(300, 2))
    whole = serialize(module.state_dict())
    assert len(whole.data) < 5000
    assert sum(buffer.nbytes for buffer in whole.buffers) == sum(4 * p.numel() for p in module.parameters())
    state, copy = rlray.get([rlray.put(module.state_dict()), rlray.put(module)])
    x = torch.ones(1, 400)
    assert torch.equal(copy(x), module(x))
    other = torch.nn.Sequential(torch.nn.Linear(400, 300), torch.nn.ReLU(), torch.nn.Linear(300, 2))
    other.load_state_dict(state)
    assert torch.equal(other(x), module(x))
    copy(x).sum().backward()  # a module from the store can be trained
    torch.optim.SGD(copy.parameters(), 0.1).step()
    assert not torch.equal(copy(x), module(x))


def test_a_tensor_over_an_array_of_empty_is_put_in_place() -> None:
    array = rlray.empty(N, np.float32)
    tensor = torch.from_numpy(array)
    tensor.fill_(2)
    ref = rlray.put({"tensor": tensor})
    assert not array.flags.writeable
    tensor_back = rlray.get(ref)["tensor"]
    assert float(tensor_back.sum()) == 2 * N


def test_nothing_loads_torch_that_does_not_need_it() -> None:
    program = (
        "import sys, numpy as np, rlray\n"
        "rlray.init(num_cpus=1)\n"
        "rlray.get(rlray.put({'a': np.ones(100_000), 'f': lambda: 1}))\n"
        "look = rlray.remote(lambda x: 'torch' in sys.modules)\n"
        "print('LOADED', 'torch' in sys.modules, rlray.get(look.remote(np.ones(100_000))))\n"
    )
    assert "LOADED False False" in run_driver(program)


def test_dataframes_travel_without_a_copy() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame({"a": np.arange(N), "b": np.arange(N) * 0.5, "c": ["text"] * N})
    ref = rlray.put(frame[["a", "b"]])
    first, second = rlray.get([ref, ref])
    pd.testing.assert_frame_equal(first, frame[["a", "b"]])
    assert np.shares_memory(first["a"].to_numpy(), second["a"].to_numpy())
    pd.testing.assert_frame_equal(rlray.get(rlray.remote(lambda f: f).remote(frame)), frame)


def test_arrow_tables_travel_without_a_copy() -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pa.table({"a": np.arange(N), "b": np.arange(N) * 0.5})
    assert len(serialize(table).data) < 10_000
    ref = rlray.put(table)
    first, second = rlray.get([ref, ref])
    assert first.equals(table)
    addresses = [t["a"].chunk(0).buffers()[1].address for t in (first, second)]
    assert addresses[0] == addresses[1]


def test_a_task_that_writes_to_an_array_is_told_to_copy() -> None:
    @rlray.remote
    def write(array: Any) -> None:
        array[0] = 1

    @rlray.remote
    class Writer:
        def write(self, array: Any) -> None:
            array += 1

    ref = rlray.put(np.zeros(N))
    for call in (write.remote(ref), Writer.remote().write.remote(ref)):
        with pytest.raises(ValueError, match=r"(?s)read-only.*array\.copy\(\)"):
            rlray.get(call)


def test_other_errors_are_not_commented_on() -> None:
    @rlray.remote
    def fail() -> None:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else") as caught:
        rlray.get(fail.remote())
    assert "copy()" not in str(caught.value)


def test_a_driver_that_ends_with_such_an_error_is_told_to_copy() -> None:
    program = (
        "import sys, numpy as np, rlray\n"
        "before = sys.excepthook\n"
        "rlray.init(num_cpus=1); rlray.shutdown(); print('RESTORED', sys.excepthook is before)\n"
        "rlray.init(num_cpus=1)\n"
        "try: rlray.get(rlray.put(np.zeros(100_000)))[0] = 1\n"
        "except ValueError: sys.excepthook(*sys.exc_info())\n"
    )
    output = run_driver(program)
    assert "RESTORED True" in output
    assert "array.copy()" in output
