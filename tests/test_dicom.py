"""DICOM and TIFF stacks: read as pydicom reads them, in mm, and nothing of the patient leaks."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import dicom_table
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from unet_lib.images import (
    ImageError,
    Region,
    pixel_size,
    read_frames,
    read_image,
    read_pixels,
    read_size,
)

DOC = Path(__file__).parent.parent / "docs" / "dicom.md"
RNG = np.random.default_rng(1)
SECRET = "Geheimnis"


def write_dicom(path: Path, values: np.ndarray, kind="MONOCHROME2", bits=8, **more) -> Path:
    """Write values (frames, H, W[, 3]) uncompressed; every text of the header is a secret."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID = f"{SECRET}^Anna", f"{SECRET}-77"
    data.PatientBirthDate, data.InstitutionName = "19480229", f"{SECRET} Clinic"
    data.ImageComments = data.StudyDescription = data.OperatorsName = f"{SECRET} left breast"
    data.add_new(0x00091010, "LO", f"{SECRET} private")
    data.Rows, data.Columns = values.shape[1:3]
    data.NumberOfFrames = len(values)
    data.SamplesPerPixel = 3 if values.ndim == 4 else 1
    if values.ndim == 4:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    data.BitsStored, data.BitsAllocated, data.HighBit = bits, 8 * values.itemsize, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in more.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    data.save_as(path, enforce_file_format=True)
    return path


def region(box, delta=(0.01, 0.02), units=3, form=1) -> Dataset:
    """Build one ultrasound region; box is left, top, last column, last row; delta in cm."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = form, 1, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = box[:2]
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box[2:]
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta
    return item


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "a.dcm"


def refused(path: Path, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        list(read_frames(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_pydicoms_own_images_are_read_right_or_refused(request):
    table = dicom_table.table()
    if request.config.getoption("agree"):
        DOC.write_text(table)
    for line in table.splitlines():
        if line.startswith("|") and "differs by" in line:
            # JPEG decoders may round chroma differently; everything else agrees to 16 bits.
            limit = 3.1 / 255 if "JPEG Baseline" in line else 1.1 / 65535
            assert float(line.rpartition("by ")[2].split()[0]) <= limit, line
    if f"pydicom {pydicom.__version__} " in DOC.read_text():
        assert table == DOC.read_text()


@pytest.mark.parametrize("bits", [6, 8, 12, 16])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_grey_of_every_depth(path, bits, kind, signed):
    store = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    low = -(2 ** (bits - 1)) if signed else 0
    values = RNG.integers(low, low + 2**bits, (1, 21, 34)).astype(store)
    image = read_image(write_dicom(path, values, kind, bits))[..., 0]
    expected = (values[0].astype(float) - low) / (2**bits - 1)
    expected = 1 - expected if kind == "MONOCHROME1" else expected
    np.testing.assert_allclose(image, expected, atol=0.51 / (255 if bits <= 8 else 65535))
    assert read_size(path) == (21, 34)


@pytest.mark.parametrize(
    ("width", "slope", "intercept"), [(4096, 1, 0), (1000, 1, 0), (1, 1, 0), (1000, 2, -7)]
)
def test_window_and_rescale(path, width, slope, intercept):
    """PS3.3 C.11.2.1.2.1, its own example values: centre 2048, width 4096 and width 1."""
    values = np.array([[[0, 1000, 2047, 2048, 4095, 3000]]], np.uint16)
    options = {"WindowCenter": 2048, "WindowWidth": width}
    options |= {"RescaleSlope": slope, "RescaleIntercept": intercept} if slope > 1 else {}
    write_dicom(path, values, bits=12, **options)
    x = values[0].astype(float) * slope + intercept
    shown = (x > 2047.5) if width == 1 else np.clip((x - 2047.5) / (width - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(read_image(path)[..., 0], shown, atol=1e-4)


def test_colour_and_palette(path):
    rgb = RNG.integers(0, 256, (1, 9, 14, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_pixels(write_dicom(path, rgb, "RGB")), rgb[0])
    data = pydicom.dcmread(path)
    data.PlanarConfiguration, data.PixelData = 1, np.moveaxis(rgb, -1, 1).tobytes()
    data.save_as(path)
    np.testing.assert_array_equal(read_pixels(path), rgb[0])
    ybr = np.stack([np.asarray(Image.fromarray(rgb[0]).convert("YCbCr"))])
    read = read_pixels(write_dicom(path, ybr, "YBR_FULL")).astype(int)
    assert np.abs(read - rgb[0]).max() <= 3  # both ways rounded to 8 bits
    index = RNG.integers(0, 256, (1, 9, 14), dtype=np.uint8)
    tables = RNG.integers(0, 65536, (3, 256), dtype=np.uint16)
    more = {}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        more[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        more[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    read = read_pixels(write_dicom(path, index, "PALETTE COLOR", **more))
    np.testing.assert_array_equal(read, np.moveaxis(tables[:, index[0]], 0, -1))
    halved = np.zeros((1, 8, 5, 4), np.uint8)
    write_dicom(path, halved, "YBR_FULL_422", Columns=10)
    assert [frame.pixels.shape for frame in read_frames(path)] == [(8, 10, 3)]
    # As ultrasound is stored by some who unpack JPEG (pydicom/deid #134).
    write_dicom(path, np.zeros((2, 8, 10, 3), np.uint8), "YBR_FULL_422")
    refused(path, "says YBR_FULL_422, but there are more pixels")


def test_several_frames(path):
    values = RNG.integers(0, 256, (5, 11, 17), dtype=np.uint8)
    frames = list(read_frames(write_dicom(path, values)))
    assert [(f.number, f.count) for f in frames] == [(n, 5) for n in range(1, 6)]
    np.testing.assert_array_equal([f.pixels for f in frames], values)
    with pytest.raises(ImageError, match=r"a\.dcm: holds 5 frames; expected one.*`segment`"):
        read_pixels(path)
    data = pydicom.dcmread(path)
    data.NumberOfFrames = 9
    data.save_as(path)
    refused(path, "cannot be decoded|says that")


def test_pixel_sizes(path):
    values = np.zeros((1, 100, 200), np.uint8)

    def regions(**more):
        return next(read_frames(write_dicom(path, values, **more))).regions

    whole = Region(0, 0, 200, 100, 0.3, 0.2)
    assert regions(PixelSpacing=[0.3, 0.2]) == (whole,)
    assert regions() == () == regions(PixelSpacing=[0, 0.2]) == regions(PixelSpacing=[-1, 2])
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing = [0.3, 0.2]
    group.PixelMeasuresSequence = [measures]
    assert regions(SharedFunctionalGroupsSequence=[group]) == (whole,)
    two = [region((10, 5, 99, 94)), region((100, 5, 199, 94), (0.05, 0.05))]
    curve = region((0, 95, 199, 99), units=4, form=4)
    expected = (Region(10, 5, 100, 95, 0.2, 0.1), Region(100, 5, 200, 95, 0.5, 0.5))
    # The regions go before the spacing of the whole picture.
    assert regions(SequenceOfUltrasoundRegions=[*two, curve], PixelSpacing=[9, 9]) == expected
    # A picture that was shrunk after its regions were written has no known scale.
    assert regions(SequenceOfUltrasoundRegions=[region((10, 5, 300, 94))]) == ()
    assert pixel_size(expected, 20, 10, 30, 40) == (0.2, 0.1)
    assert pixel_size(expected, 90, 10, 30, 40) is None  # across both
    assert pixel_size(expected, 0, 0, 5, 5) is None
    assert pixel_size((whole, Region(0, 0, 50, 50, 0.4, 0.2)), 1, 1, 5, 5) is None  # disagree


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels; expected 1 to 32,000,000"),
        ({"Rows": 500}, "cannot be decoded"),
        ({"Rows": 0}, "0 x 12 pixels"),
        ({"PhotometricInterpretation": "CMYK"}, "CMYK with 8 bits; expected MONOCHROME1"),
        ({"BitsStored": 32, "BitsAllocated": 32}, "with 32 bits"),
        ({"NumberOfFrames": 2**30}, "cannot be decoded"),
    ],
)
def test_headers_that_cannot_be_are_refused(path, more, words):
    refused(write_dicom(path, np.zeros((1, 10, 12), np.uint8), **more), words)
    data = pydicom.dcmread(path)
    del data.Rows
    data.save_as(path)
    refused(path, "without a picture")


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_dcmtk.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"]
)
def test_compressed_bombs_are_refused_before_decoding(path, name):
    """The stream inside claims another size than the header: no memory is taken for it."""
    content = bytearray((dicom_table.FOLDER / name).read_bytes())
    if "jp2k" in name:
        place = content.index(b"\xff\x4f\xff\x51") + 8
        content[place : place + 8] = b"\0\0\x23\x28" * 2
    else:
        marker = b"\xff\xf7" if "_ls_" in name else b"\xff\xc0"
        place = content.index(marker, content.index(b"\xff\xd8\xff", 300)) + 5
        content[place : place + 4] = b"\x23\x28\x23\x28"
    path.write_bytes(content)
    refused(path, "the compressed picture 9000 x 9000")


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (b"1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Multi-component.*"),
        (b"1.2.840.113619.5.2.123", "an unknown transfer syntax"),
    ],
)
def test_transfer_syntaxes_that_are_not_read(path, syntax, name):
    content = (dicom_table.FOLDER / "MR_small_jp2klossless.dcm").read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.4.90", syntax, 1))
    refused(path, rf"DICOM with {name}, which .* Export it as PNG")


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_compressed_frames_are_counted_and_bounded(path):
    data = pydicom.dcmread(dicom_table.FOLDER / "MR_small_jp2klossless.dcm")
    (code,) = generate_frames(data.PixelData, number_of_frames=1)
    data.PixelData = encapsulate([code, code])
    for said in (1, 3):
        data.NumberOfFrames = said
        data.save_as(path)
        refused(path, f"says .* {said} frames, 2 are there. Copy it")
    os.truncate(path, 400_000_001)  # takes no room on the disk
    refused(path, "larger than 400,000,000 bytes. Export fewer frames")


def test_lossless_jpeg_without_its_decoder_names_it(monkeypatch):
    class Bare:
        available_plugins = ("gdcm",)

    monkeypatch.setattr("unet_lib.images.dicom.get_decoder", lambda syntax: Bare)
    refused(dicom_table.FOLDER / "SC_rgb_jpeg_gdcm.dcm", "pip install pylibjpeg-libjpeg")


def test_no_message_quotes_the_patient(path, caplog):
    """Cut at every place and with bytes changed everywhere in the header."""
    write_dicom(path, np.zeros((1, 9, 9), np.uint8), PixelSpacing=[1, 1])
    content = path.read_bytes()
    assert content.count(SECRET.encode()) == 7
    rng = np.random.default_rng(0)
    said = io.StringIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for turn in range(600):
            broken = bytearray(content)
            if turn % 3 == 0:
                broken = broken[: rng.integers(132, len(content))]
            for place in rng.integers(132, len(broken), rng.integers(1, 20)):
                broken[place] = rng.integers(256)
            path.write_bytes(broken)
            try:
                read_image(path)
            except ImageError as error:
                said.write(f"{error} {error.__cause__}\n")
    said.write("\n".join(str(w.message) for w in caught) + caplog.text)
    assert len(said.getvalue()) > 1000 and "heimni" not in said.getvalue()
    assert "Anna" not in said.getvalue() and "left breast" not in said.getvalue()
