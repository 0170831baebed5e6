"""The reader of weights files against files made to harm."""

import h5py
import numpy as np
import pytest

from unet_lib.weights import WeightsError
from unet_lib.weights.hdf5 import read_hdf5


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.arange(36, dtype="float32").reshape(3, 3, 1, 4)
        file["layers/conv2d/vars/1"] = np.ones(4, "float32")
        file["layers/conv2d/vars"].attrs["name"] = "conv2d"
        file["optimizer/vars/0"] = np.int64(7)
    return path


def test_arrays_groups_and_texts(path):
    values = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    with h5py.File(path, "r+") as file:
        file.create_dataset("layers/x", data=values, compression="gzip", shuffle=True)
    contents = read_hdf5(path)
    names = ["layers/conv2d/vars/0", "layers/conv2d/vars/1", "layers/x"]
    assert sorted(contents.arrays) == names
    np.testing.assert_array_equal(contents.arrays["layers/conv2d/vars/1"], np.ones(4, "float32"))
    np.testing.assert_array_equal(contents.arrays["layers/x"], values)
    assert sorted(contents.groups) == ["", "layers", "layers/conv2d", "layers/conv2d/vars"]
    assert contents.texts == {"layers/conv2d/vars@name": ("conv2d",)}
    assert sorted(read_hdf5("inside.keras", path.read_bytes()).arrays) == names


def external(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.ones(3, "float32")
    file["layers/out"] = h5py.ExternalLink("other.h5", "/secret")


def outside(file, folder):
    (folder / "raw.bin").write_bytes(bytes(64))
    file.create_dataset("layers/x", (16,), "f4", external=[(str(folder / "raw.bin"), 0, 64)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (4,))
    file.create_virtual_dataset("layers/x", layout)


def a_gibibyte(file, folder):
    """More than is read, all of it in the file: a hole, so that no disk is filled."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(((1 << 28) + 1,))
    h5py.h5d.create(file["layers"].id, b"x", h5py.h5t.IEEE_F32LE, space, plist)


def put(name, value):
    """Write one thing; what is made of the file is a function of it."""

    def harm(file, folder):
        file[name] = value(file) if callable(value) else value

    return harm


def dataset(*arguments, **options):
    return lambda file, folder: file.create_dataset("layers/x", *arguments, **options)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (put("layers/soft", h5py.SoftLink("/layers/conv2d")), "'layers/soft' is a soft or ext"),
        (external, "'layers/out' is a soft or external link"),
        (put("layers/again", lambda f: f["layers/conv2d"]), "something else is stored"),
        (put("layers/conv2d/vars/self", lambda f: f["layers"]), "something else is stored"),
        (outside, "'layers/x' keeps its values in another file"),
        (virtual, "'layers/x' keeps its values in another file"),
        (dataset((1 << 17, 1 << 17), "f4"), "takes 68,719,476,736 bytes, 0 are stored"),
        (
            dataset((1 << 17, 1 << 17), "f4", chunks=(1024, 1024)),
            "takes 68,719,476,736 bytes, 0 are stored",
        ),
        (dataset(data=np.zeros(1 << 22, "f4"), compression="gzip"), "takes 16,777,216 bytes"),
        (dataset(data=np.ones(4096, "f4"), compression="lzf"), "unknown filter"),
        (dataset((2,), h5py.string_dtype()), "expected floats"),
        (
            put("layers/x", lambda f: np.array([f["layers"].ref], h5py.ref_dtype)),
            "expected floats",
        ),
        (put("layers/x", np.zeros(3, [("a", "f4"), ("b", "i4")])), "expected floats"),
        (put("layers/x", np.dtype("f4")), "is a Datatype"),
        (put("layers/x", h5py.Empty("f4")), "damaged"),
        (
            lambda file, folder: file["layers"].attrs.create("names", [[b"a", b"b"]]),
            "attribute 'names' of 'layers' is too large or a table",
        ),
        (a_gibibyte, r"its arrays take 1,073,741,\d+ bytes, at most 1,073,741,824 are read"),
        (put("layers/x", np.array([1, np.nan], "f4")), "not finite"),
    ],
)
def test_what_harms_is_refused(path, harm, message):
    with h5py.File(path, "r+") as file:
        harm(file, path.parent)
    with pytest.raises(WeightsError, match=message) as error:
        read_hdf5(path)
    assert str(path) in str(error.value)


def test_many_objects_are_refused(path, monkeypatch):
    monkeypatch.setattr("unet_lib.weights.hdf5._MOST_OBJECTS", 4)
    with pytest.raises(WeightsError, match="holds more than 4 objects"):
        read_hdf5(path)


def test_an_address_that_shows_other_bytes_is_refused(path):
    """Old-style headers have no checksum: the array would read as four other numbers."""
    with h5py.File(path) as file:
        bias, kernel = (file[f"layers/conv2d/vars/{k}"].id.get_offset() for k in (1, 0))
        header = h5py.h5o.get_info(file["layers/conv2d/vars"].id).addr
    data = path.read_bytes()
    assert data.count(bias.to_bytes(8, "little")) == 1
    for where in (kernel + 16, header, len(data) - 8):
        path.write_bytes(data.replace(bias.to_bytes(8, "little"), where.to_bytes(8, "little")))
        with pytest.raises(WeightsError, match="something else is stored|damaged"):
            read_hdf5(path)


def test_what_is_no_weights_file_is_named(path):
    whole = path.read_bytes()
    for data, message in (
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "this is a web page"),
        (b"PK\x03\x04 zip", "not an HDF5 file"),
        (whole[: len(whole) // 2], "damaged HDF5 file"),
    ):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=message):
            read_hdf5(path)
    path.unlink()
    with pytest.raises(WeightsError, match="No such file"):
        read_hdf5(path)
