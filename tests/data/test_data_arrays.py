"""Arrays and images: what was stored is what is taken, and what cannot be used is named."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from pellucid.data import Dataset, Preprocessor, load
from pellucid.data.storage import FileRows
from pellucid.errors import DataError, EngineError, ParameterError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


PAIRS = [("x", "y"), ("X", "y"), ("data", "target")]


@pytest.mark.parametrize("keys", PAIRS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("memory_limit", [2**20, 100])
def test_npz(tmp_path, rng, keys, save, memory_limit):
    x, y = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 3, 40)
    save(tmp_path / "d.npz", **dict(zip(keys, (x, y), strict=True)))
    ds = load(tmp_path / "d.npz", memory_limit=memory_limit)
    assert isinstance(ds._x, FileRows) == (memory_limit == 100)
    taken_x, taken_y = ds.take([39, 0, 7])
    assert np.array_equal(taken_x, x[[39, 0, 7]])
    assert np.array_equal(taken_y, y[[39, 0, 7]])
    assert ds.task == "classification"
    again = load(tmp_path / "d.npz", memory_limit=memory_limit)
    assert np.array_equal(again.take([1])[0], x[[1]])
    assert again.fingerprint == ds.fingerprint


@pytest.mark.parametrize("memory_limit", [2**20, 100])
def test_npz_with_a_test_set_and_names(tmp_path, rng, memory_limit):
    x, y = rng.normal(size=(30, 2, 3)), rng.integers(0, 2, 30)
    np.savez(
        tmp_path / "d.npz",
        x_train=x[:20],
        y_train=y[:20],
        x_test=x[20:],
        y_test=y[20:],
        target_names=np.array(["cat", "dog"]),
    )
    ds = load(tmp_path / "d.npz", memory_limit=memory_limit)
    assert ds.test_rows.tolist() == list(range(20, 30))
    assert np.array_equal(ds.take(slice(None))[0], x)
    assert ds.classes == ["cat", "dog"]
    assert np.array_equal(ds.y, y)


def test_npz_in_fortran_order(tmp_path, rng):
    x = np.asfortranarray(rng.normal(size=(20, 3)))
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(20) * 0.5)
    assert np.array_equal(load(tmp_path / "d.npz").take([3, 1])[0], x[[3, 1]])


def test_npz_that_is_not_clear_or_not_whole(tmp_path, rng):
    path = tmp_path / "d.npz"
    np.savez(path, images=rng.normal(size=(4, 2)), marks=np.arange(4) * 0.5)
    with pytest.raises(DataError, match=r"not clear which(.|\n)*images \(4, 2\), marks \(4,\)(.|\n)*keys="):
        load(path)
    assert load(path, keys=("images", "marks")).y.tolist() == [0, 0.5, 1, 1.5]
    with pytest.raises(DataError, match="not clear which"):
        load(path, keys=("images", "nothing"))
    np.savez(path, x=np.zeros((4, 2)), y=np.arange(3))
    with pytest.raises(DataError, match=r"inputs and targets differ in number(.|\n)*4 targets"):
        load(path)
    np.savez(path, x_train=np.zeros((4, 2)), y_train=np.arange(4), x_test=np.zeros((4, 3)), y_test=np.arange(4))
    with pytest.raises(DataError, match="training and test inputs differ in kind"):
        load(path)
    np.savez(path, x=np.zeros(()), y=np.arange(3))
    with pytest.raises(DataError, match="no rows of numbers"):
        load(path)
    np.savez(path, x=rng.normal(size=(100, 20)), y=np.arange(100))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged or cut off"):
        load(path)
    path.write_bytes(whole[:500] + b"\xff" * 64 + whole[564:])
    with pytest.raises(DataError, match="cannot be read"):
        load(path)


class Trap:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickled_objects_are_never_opened(tmp_path, suffix):
    trap = np.array([Trap(tmp_path / "sprung"), None], dtype=object)
    if suffix == "npz":
        np.savez(tmp_path / "d.npz", x=np.zeros((2, 2)), y=trap)
    else:
        np.save(tmp_path / "d.npy", trap)
    with pytest.raises(DataError, match=r"holds Python objects, which could run code"):
        load(tmp_path / f"d.{suffix}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("memory_limit", [2**20, 100])
def test_npy_as_a_table_and_with_targets_beside(tmp_path, rng, memory_limit):
    values = rng.normal(size=(30, 4))
    np.save(tmp_path / "d.npy", values)
    ds = load(tmp_path / "d.npy", memory_limit=memory_limit)
    assert ds.feature_names == ["column 1", "column 2", "column 3"]
    x, y = ds.take([5, 2])
    assert np.array_equal(np.stack(list(x.values()), 1), values[[5, 2], :3])
    assert np.array_equal(y, values[[5, 2], 3])
    np.save(tmp_path / "y.npy", np.arange(30) % 2)
    ds = load(tmp_path / "d.npy", target=tmp_path / "y.npy", memory_limit=memory_limit)
    assert isinstance(ds._x, FileRows) == (memory_limit == 100)
    assert np.array_equal(ds.take([7])[0], values[[7]])
    assert ds.task == "classification"
    np.save(tmp_path / "d.npy", rng.normal(size=(3, 2, 2)))
    with pytest.raises(DataError, match=r"holds no targets(.|\n)*target='y.npy'"):
        load(tmp_path / "d.npy")
    np.save(tmp_path / "d.npy", np.zeros(3, [("a", float)]))
    with pytest.raises(DataError, match="no rows of numbers"):
        load(tmp_path / "d.npy")
    (tmp_path / "d.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"d\.npy: this is no NPY file"):
        load(tmp_path / "d.npy")
    np.savez(tmp_path / "z.npz", x=values)
    (tmp_path / "d.npy").write_bytes((tmp_path / "z.npz").read_bytes())
    with pytest.raises(DataError, match="NPZ archive under another name"):
        load(tmp_path / "d.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_placed(tmp_path, rng, value):
    x = rng.normal(size=(50, 3))
    x[17, 2] = value
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(50) * 0.5)
    with pytest.raises(DataError, match=r"first at x\[17, 2\]: 1 value is (NaN|infinite)"):
        load(tmp_path / "d.npz")
    if np.isnan(value):
        ds = load(tmp_path / "d.npz", missing="mean")
        X = Preprocessor.fit(ds).x(ds.take([17])[0])
        assert X[0, 2] == 0
        with pytest.raises(ParameterError, match="is for tables"):
            load(tmp_path / "d.npz", missing="drop")
    else:
        with pytest.raises(DataError, match="infinite"):
            load(tmp_path / "d.npz", missing="mean")
    y = np.arange(50) * 0.5
    y[9] = value
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 3)), y=y)
    with pytest.raises(DataError, match=r"row 9: 1 target is not finite"):
        load(tmp_path / "d.npz")


def test_arrays_in_memory():
    with pytest.raises(DataError, match="not a single example"):
        Dataset(np.zeros((0, 3)))
    with pytest.raises(DataError, match=r"differ in number(.|\n)*4 targets(.|\n)*3"):
        Dataset(np.zeros((4, 3)), np.arange(3))
    with pytest.raises(DataError, match="inputs are not numbers"):
        Dataset(np.array([["a"], ["b"]]), [0, 1])
    with pytest.raises(DataError, match="one class only"):
        Dataset(np.zeros((4, 3)), [1, 1, 1, 1], task="classification")
    with pytest.raises(DataError, match=r"out of range(.|\n)*0 … 1(.|\n)*2"):
        Dataset(np.zeros((3, 3)), [0, 1, 2], classes=["a", "b"])
    with pytest.raises(DataError, match=r"class names and classes differ(.|\n)*2 names"):
        Dataset(np.zeros((3, 3)), ["u", "v", "u"], classes=["a", "b", "c"])
    with pytest.raises(DataError, match=r"needs one class"):
        Dataset(np.zeros((3, 3)), np.arange(6).reshape(3, 2) * 0.5, task="classification")
    with pytest.raises(DataError, match="cannot be read as images"):
        Dataset(np.zeros((3, 5, 5, 5)), images=True)
    with pytest.raises(DataError, match=r"more than one way(.|\n)*images='HWC' or 'CHW'"):
        Dataset(np.zeros((3, 1, 5, 4)))
    assert Dataset(np.zeros((3, 1, 5, 4)), images="CHW").example_shape == (1, 5, 4)
    assert Dataset(np.zeros((3, 1, 5, 4)), images="HWC").example_shape == (4, 1, 5)


def test_one_hot_targets_become_classes_and_many_targets_stay(rng):
    ds = Dataset(np.zeros((3, 2)), np.eye(3)[[2, 0, 1]])
    assert ds.task == "classification"
    assert ds.y.tolist() == [2, 0, 1]
    targets = rng.normal(size=(6, 2))
    ds = Dataset(rng.normal(size=(6, 3)), targets)
    assert ds.task == "regression"
    assert np.array_equal(ds.take([4, 1])[1], targets[[4, 1]])


def test_fingerprint_of_arrays_follows_every_value(rng):
    x, y = rng.normal(size=(10, 3)), rng.integers(0, 2, 10)
    first = Dataset(x, y).fingerprint
    assert first == Dataset(x.copy(), y.copy()).fingerprint
    assert len(first) == 64
    x[9, 2] += 1e-9
    assert Dataset(x, y).fingerprint != first


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW"])
def test_images_come_with_the_channel_first(rng, layout):
    pixels = rng.integers(0, 256, (6, 3, 5, 7), np.uint8)
    stored = {"HW": pixels[:, 0], "HWC": pixels.transpose(0, 2, 3, 1), "CHW": pixels}[layout]
    x, _ = Dataset(stored, np.arange(6) % 2).take([4, 2])
    assert np.array_equal(x, pixels[[4, 2], :1] if layout == "HW" else pixels[[4, 2]])
    flat = Dataset(stored, np.arange(6) % 2, images=False)
    assert flat.kind == "array"
    assert np.array_equal(flat.take([1])[0], stored[[1]])


def idx(array: np.ndarray) -> bytes:
    code = {np.dtype("u1"): 8, np.dtype(">i4"): 0x0C, np.dtype(">f4"): 0x0D}[array.dtype]
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("memory_limit", [2**20, 100])
def test_idx_folder_and_file(tmp_path, rng, packed, memory_limit):
    pixels, labels = rng.integers(0, 256, (30, 4, 5), np.uint8), (np.arange(30) % 3).astype(np.uint8)
    for name, rows in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            data = idx(array[rows])
            path = tmp_path / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    ds = load(tmp_path, memory_limit=memory_limit)
    assert ds.test_rows.tolist() == list(range(20, 30))
    x, y = ds.take([25, 3])
    assert np.array_equal(x, pixels[[25, 3], None])
    assert y.tolist() == labels[[25, 3]].tolist()
    one = load(tmp_path / f"train-images-idx3-ubyte{'.gz' if packed else ''}", memory_limit=memory_limit)
    assert len(one) == 20
    assert np.array_equal(one.y, labels[:20])
    assert "labels are read from train-labels" in " ".join(one.report)


def test_idx_of_other_types(tmp_path):
    values = np.array([[1, -2], [70000, 4]], ">i4")
    (tmp_path / "a.idx").write_bytes(idx(values))
    (tmp_path / "b.idx").write_bytes(idx(np.array([0.5, 1.5], ">f4")))
    ds = load(tmp_path / "a.idx", target=tmp_path / "b.idx")
    x, y = ds.take([1, 0])
    assert x.tolist() == [[70000, 4], [1, -2]]
    assert y.tolist() == [1.5, 0.5]


def test_idx_that_is_damaged_or_alone(tmp_path, rng):
    pixels = rng.integers(0, 256, (30, 4, 5), np.uint8)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(pixels))
    with pytest.raises(DataError, match=r"no labels beside(.|\n)*train-labels-idx1-ubyte"):
        load(path)
    with pytest.raises(DataError, match=r"IDX files are missing(.|\n)*train-labels"):
        load(tmp_path)
    assert len(load(path, target=False)) == 30
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx((np.arange(30) % 3).astype(np.uint8)))
    path.write_bytes(idx(pixels)[:-50])
    with pytest.raises(DataError, match=r"cut off(.|\n)*30 rows(.|\n)*27 rows"):
        load(path)
    path.write_bytes(b"\x08\x00\x01\x02")
    with pytest.raises(DataError, match="no IDX file"):
        load(path)
    packed = tmp_path / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(idx(pixels))[:-30])
    with pytest.raises(DataError, match=r"no IDX file|cannot be read"):
        load(packed, target=False)


@pytest.fixture
def save_image(tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="image folders need Pillow")

    def save(name, pixels, mode=None):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.asarray(pixels, np.uint8))
        (picture.convert(mode) if mode else picture).save(path)
        return path

    return save


def test_folders_of_images(tmp_path, rng, save_image, home):
    pixels = rng.integers(0, 256, (4, 6, 5, 3), np.uint8)
    for i, name in enumerate(("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.PNG")):
        save_image(name, pixels[i])
    (tmp_path / "pictures" / "dog" / "notes.txt").write_text("hello")
    for memory_limit in (2**20, 100):
        ds = load(tmp_path / "pictures", memory_limit=memory_limit)
        x, y = ds.take([3, 0, 1])
        assert np.array_equal(x, pixels[[3, 0, 1]].transpose(0, 3, 1, 2))
        assert y.tolist() == ["dog", "cat", "cat"]
    assert ds.classes == ["cat", "dog"]
    assert isinstance(ds._x, FileRows)
    assert "1 other file or folder in dog" in " ".join(ds.report)
    assert ds.fingerprint == load(tmp_path / "pictures").fingerprint
    grey = load(tmp_path / "pictures", channels="grey", image_size=(3, 2))
    assert grey.take([0])[0].shape == (1, 1, 3, 2)
    assert "4 images are resized to 3×2" in " ".join(grey.report)


def test_new_image_files_are_brought_to_what_training_saw(tmp_path, rng, save_image):
    for name in ("a/1.png", "b/2.png"):
        save_image(name, rng.integers(0, 256, (4, 5)))
    trained = Preprocessor.fit(load(tmp_path / "pictures", image_size=(2, 3)))
    pixels = rng.integers(0, 256, (8, 6, 3))
    new = load(save_image("new/3.png", pixels), like=trained)
    assert "1 image is resized to 2×3" in " ".join(new.report)
    resized = load(tmp_path / "pictures" / "new" / "3.png", channels="grey", image_size=(2, 3), target=False)
    np.testing.assert_array_equal(trained.x(new.take([0])[0]), trained.x(resized.take([0])[0]))
    with pytest.raises(DataError, match=r"another shape(.|\n)*\(m, 1, 2, 3\)(.|\n)*\(1, 3, 6, 8\)(.|\n)*resize arrays"):
        trained.x(pixels.T[None])


def test_folders_train_and_test(tmp_path, rng, save_image):
    pixels = rng.integers(0, 256, (6, 4, 4), np.uint8)
    for i, name in enumerate(("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/a/4.png", "test/b/5.png")):
        save_image(name, pixels[i])
    ds = load(tmp_path / "pictures")
    assert len(ds) == 5
    assert ds.test_rows.tolist() == [3, 4]
    assert np.array_equal(ds.take(ds.test_rows)[0][:, 0], pixels[3:5])
    assert "val is joined" in " ".join(ds.report)
    save_image("test/c/6.png", pixels[5])
    with pytest.raises(DataError, match=r"classes that the training images lack(.|\n)*a, b(.|\n)*c"):
        load(tmp_path / "pictures")


def test_images_that_disagree_or_are_broken(tmp_path, rng, save_image):
    save_image("a/1.png", rng.integers(0, 256, (4, 4)))
    second = save_image("b/2.png", rng.integers(0, 256, (4, 6)))
    with pytest.raises(DataError, match=r"2 different sizes(.|\n)*image_size=(.|\n)*4×6 \(1, such as 2.png\)"):
        load(tmp_path / "pictures")
    save_image("b/2.png", rng.integers(0, 256, (4, 4, 3)))
    with pytest.raises(
        DataError, match=r"some images are grey(.|\n)*channels='grey' or 'rgb'(.|\n)*1 rgb \(such as 2.png\)"
    ):
        load(tmp_path / "pictures")
    assert load(tmp_path / "pictures", channels="rgb").example_shape == (3, 4, 4)
    with pytest.raises(ParameterError, match="unknown channels="):
        load(tmp_path / "pictures", channels="cmyk")
    second.write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"2.png: this image cannot be read"):
        load(tmp_path / "pictures")
    whole = save_image("b/2.png", rng.integers(0, 256, (64, 64))).read_bytes()
    save_image("a/1.png", rng.integers(0, 256, (64, 64)))
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"2.png: this image cannot be read"):
        load(tmp_path / "pictures")
    (tmp_path / "pictures" / "c").mkdir()
    with pytest.raises(DataError, match=r"c: this class has no images"):
        load(tmp_path / "pictures")


def test_transparent_images_lie_on_white(tmp_path, save_image):
    see_through = np.zeros((2, 2, 4))
    see_through[0, 0] = (10, 20, 30, 255)
    save_image("a/1.png", see_through)
    save_image("b/2.png", see_through)
    x = load(tmp_path / "pictures").take([0])[0]
    assert x[0, :, 0, 0].tolist() == [10, 20, 30]
    assert x[0, :, 1, 1].tolist() == [255, 255, 255]


def test_sixteen_bit_grey(tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="image folders need Pillow")
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.fromarray(np.array([[0, 65535], [32896, 257]], np.uint16)).save(tmp_path / "p" / name / "1.png")
    assert load(tmp_path / "p").take([1])[0].tolist() == [[[[0, 255], [128, 1]]]]


def test_new_images_without_classes(tmp_path, rng, save_image):
    pixels = rng.integers(0, 256, (3, 4, 4), np.uint8)
    save_image("a/1.png", pixels[0])
    save_image("b/2.png", pixels[1])
    pre = Preprocessor.fit(load(tmp_path / "pictures"))
    path = save_image("new.png", np.stack([pixels[2]] * 3, -1))
    ds = load(path, like=pre)
    assert ds.y is None
    assert np.allclose(pre.x(ds.take([0])[0])[0, 0], (pixels[2] - pre.mean) / pre.scale, atol=1e-5)


def test_a_folder_of_nothing(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "data.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"nothing in this folder(.|\n)*data.csv(.|\n)*give the file itself"):
        load(tmp_path / "x")


def test_an_absent_library_is_named_with_its_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(EngineError, match=r"pyarrow is not installed(.|\n)*pellucid\[parquet\]"):
        load(tmp_path / "a.parquet")
