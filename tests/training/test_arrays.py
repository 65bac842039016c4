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


def test_arrays_and_description_are_read_again(path):
    description, file = read_arrays(path)
    assert description == {"env_steps": 7, "name": "größer"}
    assert set(file.names) == set(ARRAYS)
    for name, array in ARRAYS.items():
        found = file.read(name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_safetensors_itself_reads_the_file(path):
    found = safetensors.numpy.load_file(path)
    assert found.pop("checksum").shape == (1,)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    assert list(path.parent.iterdir()) == [path]


def test_some_rows_are_read(path):
    _, file = read_arrays(path)
    np.testing.assert_array_equal(file.read("losses", slice(1, 3)), ARRAYS["losses"][1:3])
    np.testing.assert_array_equal(file.read("done", slice(2, 3)), [True])
    assert file.read("no columns", slice(0, 2)).shape == (2, 0)


def test_pieces_are_joined_along_the_first_axis(tmp_path):
    array = np.arange(20, dtype=np.float32).reshape(5, 2, 2)
    pieces = iter([array[:2], array[2:2], array[2:]])
    write_arrays(tmp_path / "a", None, [ArrayPieces("x", np.float32, (5, 2, 2), pieces)])
    np.testing.assert_array_equal(read_arrays(tmp_path / "a")[1].read("x"), array)


def test_neither_writing_nor_reading_holds_a_large_array(tmp_path):
    rows, pieces = 64, 64  # a megabyte each

    def made():
        for number in range(pieces):
            yield np.full((rows, 4096), number, np.float32)

    tracemalloc.start()
    try:
        write_arrays(tmp_path / "a", None, [ArrayPieces("x", np.float32, (rows * pieces, 4096), made())])
        _, file = read_arrays(tmp_path / "a")
        assert file.read("x", slice(640, 641))[0, 0] == 10
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size > 64 * 2**20
    assert peak < 12 * 2**20


def test_each_of_forty_flipped_bits_is_found(path):
    data = path.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(data), 40, replace=False).tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"7\.safetensors is damaged: "):
            read_arrays(path)


@pytest.mark.parametrize(
    "content",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: bytes(4),  # the CRC-32 of nothing
        lambda data: b"text",
        lambda data: safetensors.numpy.save({"x": np.zeros(3)}),
    ],
)
def test_cut_and_foreign_files_are_found(path, content):
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=r"7\.safetensors is damaged: "):
        read_arrays(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"a\.safetensors could not be read: No such file"):
        read_arrays(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("pieces", "fault"),
    [
        ([np.zeros((2, 3), np.float64)], r"a piece of x is float64\[2, 3\], but must be a piece of float32\[4, 3\]"),
        ([np.zeros((2, 2), np.float32)], r"a piece of x is float32\[2, 2\]"),
        ([np.zeros((2, 3), np.float32)], r"x has 2 rows, but must have the shape \[4, 3\]"),
    ],
)
def test_pieces_of_another_array_are_refused_and_the_earlier_file_stays(path, pieces, fault):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=fault):
        write_arrays(path, None, [ArrayPieces("x", np.float32, (4, 3), pieces)])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_two_arrays_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="x is the name of two arrays"):
        write_arrays(tmp_path / "a", None, [whole("x", 1), whole("x", 2)])
    assert list(tmp_path.iterdir()) == []


def test_full_disk_names_the_file_and_leaves_the_earlier_one(path):
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"7\.safetensors could not be written: File too large"):
            write_arrays(path, None, [whole("x", np.zeros(10_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
