"""Files of arrays: what is written is read again, by an independent program too, and any damage is found."""

import resource
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from ddpg_jax.training.arrays import ArrayPieces, read_arrays, whole, write_arrays

ARRAYS = {
    "losses": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
    "done": np.array([True, False, True]),
    "keys": np.arange(4, dtype=np.uint32).reshape(2, 2) + 2**31,
    "step": np.array(2**31 - 1, np.int32),
    "returns": np.array([[np.nan, -np.inf], [1e300, 5e-324]]),
    "no rows": np.zeros((0, 3)),
    "no columns": np.zeros((3, 0), np.int64),
    "half": np.ones(3, np.float16),
    "complex": np.array([1 + 2j], np.complex64),
    "transposed": np.arange(6).reshape(2, 3).T,
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder/7.safetensors"
    write_arrays(path, {"env_steps": 7, "name": "größer"}, [whole(name, array) for name, array in ARRAYS.items()])
    return path


def test_arrays_or_some_of_their_rows_are_read_again_also_by_safetensors_itself(path):
    description, file = read_arrays(path)
    assert description == {"env_steps": 7, "name": "größer"}
    independent = safetensors.numpy.load_file(path)
    assert set(independent) == {*file.names, "checksum"} == {*ARRAYS, "checksum"}
    for name, array in ARRAYS.items():
        assert file.read(name).dtype == independent[name].dtype == array.dtype
        np.testing.assert_array_equal(file.read(name), array)
        np.testing.assert_array_equal(independent[name], array)
    assert list(path.parent.iterdir()) == [path]
    np.testing.assert_array_equal(file.read("losses", slice(1, 3)), ARRAYS["losses"][1:3])
    assert file.read("no columns", slice(0, 2)).shape == (2, 0)


def test_neither_writing_nor_reading_holds_a_large_array(tmp_path):
    pieces = (np.full((64, 4096), number, np.float32) for number in range(64))  # a megabyte each
    tracemalloc.start()
    try:
        write_arrays(tmp_path / "a", None, [ArrayPieces("x", np.float32, (64 * 64, 4096), pieces)])
        _, file = read_arrays(tmp_path / "a")
        assert file.read("x", slice(639, 641))[:, 0].tolist() == [9, 10]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size > 64 * 2**20
    assert peak < 12 * 2**20


def test_each_of_forty_flipped_bits_is_found(path):
    data = path.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(data), 40, replace=False).tolist():
        path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        with pytest.raises(ValueError, match=r"7\.safetensors is damaged: "):
            read_arrays(path)


@pytest.mark.parametrize(
    "content",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: bytes(4),  # the CRC-32 of nothing
        lambda data: safetensors.numpy.save({"x": np.zeros(3)}),
    ],
)
def test_cut_and_foreign_files_are_found(path, content):
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=r"7\.safetensors is damaged: "):
        read_arrays(path)


@pytest.mark.parametrize(
    ("piece", "error", "fault"),
    [
        (np.zeros((4, 3), np.int32), TypeError, "int32"),
        (np.zeros((2, 3), np.float32), ValueError, "do not have the shapes"),
        (np.zeros((4, 3000), np.float32), OSError, r"7\.safetensors could not be written: File too large"),
    ],
)
def test_pieces_that_do_not_fit_and_a_full_disk_leave_the_earlier_file(path, piece, error, fault):
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(error, match=fault):
            write_arrays(path, None, [ArrayPieces("x", np.float32, (4, 3), [piece])])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
