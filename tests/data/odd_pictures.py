"""A folder of odd files, 8x8 pixels each: pictures of every kind with their pixels, broken ones, and other files."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

RANDOM = np.random.default_rng(0)
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
LEFT = np.repeat((np.arange(8) < 4)[None], 8, axis=0)
"""The left half."""
REPORT = (
    "34 pictures, 18 files left out (.png broken 3, hidden 3, .jpg broken 2, .tif broken 2, .csv 1, .eps 1, "
    ".gif broken 1, .mpg 1, others 4)"
)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def half(left: tuple[int, int, int], right: tuple[int, int, int]) -> np.ndarray:
    """One colour on the left, another on the right."""
    return np.where(LEFT[..., None], left, right).astype(np.uint8)


def png(depth: int, colour: int, rows: list[bytes], transparent: bytes) -> bytes:
    """A PNG of 8x8 pixels that Pillow cannot write, with a transparent colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 8, 8, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def malformed_exif() -> bytes:
    """EXIF data with orientation 6, a unit that is out of range, and a number that lies outside of the data."""
    tags = [(0x0112, 3, 1, 6), (0x0128, 4, 1, 70_000), (0x011A, 5, 1, 0x7FFFFFF0)]  # tag, type, count, value
    packed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + packed + bytes(4)


def write_eight_bits(root: Path) -> dict[str, np.ndarray]:
    """Files whose pixels are what they store."""
    image = Image.fromarray(COLOURS)
    for name in ("plain.png", "UPPER.PNG", "plain.bmp", "plain.tif", "plain.ppm", "plain.tga", "plain.gif"):
        image.save(root / name)
    image.save(root / "plain.webp", lossless=True)
    image.quantize(64).save(root / "palette.png")
    Image.fromarray(GREY).save(root / "grey.png")
    Image.fromarray(LEFT).save(root / "one_bit.png")
    red, other = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for name, options in {"animated.gif": {}, "animated.webp": {"lossless": True}, "pages.tif": {}}.items():
        red.save(root / name, save_all=True, append_images=[other], **options)
    Image.new("L", (8, 8), 77).save(root / "photo.jfif", "JPEG")
    same = ["plain.png", "UPPER.PNG", "plain.bmp", "plain.tif", "plain.ppm", "plain.tga", "plain.webp", "palette.png"]
    first = {name: half((255, 0, 0), (255, 0, 0)) for name in ("animated.gif", "animated.webp", "pages.tif")}
    return (
        dict.fromkeys([*same, "plain.gif"], COLOURS)
        | first
        | {
            "grey.png": rgb(GREY),
            "one_bit.png": half((255, 255, 255), (0, 0, 0)),
            "photo.jfif": np.full((8, 8, 3), 77, np.uint8),
        }
    )


def write_other_modes(root: Path) -> dict[str, np.ndarray]:
    """Files with other colours or depths than 8-bit RGB and grey."""
    deep = GREY.astype(np.uint16) << 8 | 0xFF  # Pillow's own conversion would clip it
    Image.fromarray(deep).save(root / "sixteen.png")
    Image.fromarray(deep).save(root / "sixteen.tif")
    Image.fromarray(deep.astype(np.int32)).save(root / "sixteen.pgm")
    inverted = TiffImagePlugin.ImageFileDirectory_v2()
    inverted[262] = 0  # white is zero
    Image.fromarray(65535 - deep).save(root / "inverted.tif", tiffinfo=inverted)
    Image.fromarray((GREY / 255).astype(np.float32)).save(root / "float.tif")
    ink = np.stack([COLOURS[..., 0], COLOURS[..., 1], COLOURS[..., 2], GREY], axis=-1)
    Image.fromarray(ink, "CMYK").save(root / "cmyk.tif")
    light = (255 - COLOURS.astype(float)) * (255 - GREY[..., None].astype(float)) / 255
    names = ("sixteen.png", "sixteen.tif", "sixteen.pgm", "inverted.tif", "float.tif")
    return dict.fromkeys(names, rgb(GREY)) | {"cmyk.tif": light}


def write_transparent(root: Path) -> dict[str, np.ndarray]:
    """Files whose left half is transparent, over white; in rgba.png each pixel is to some degree."""
    Image.fromarray(np.dstack([COLOURS, np.where(LEFT, 0, 255).astype(np.uint8)])).save(root / "hidden_colour.png")
    Image.fromarray(np.dstack([COLOURS, GREY])).save(root / "rgba.png")
    Image.fromarray(np.dstack([GREY, np.where(LEFT, 0, 255).astype(np.uint8)])).save(root / "la.png")
    two = Image.fromarray(LEFT.astype(np.uint8), "P")
    two.putpalette([0, 0, 255, 9, 9, 9])
    two.save(root / "index.png", transparency=1)
    two.save(root / "index.gif", transparency=1)
    two.save(root / "alpha_palette.png", transparency=bytes([255, 0]))
    halves = Image.fromarray(half((1, 2, 3), (0, 0, 255)))
    halves.save(root / "colour_key.png", transparency=(1, 2, 3))
    (root / "two_bits.png").write_bytes(png(2, 0, [bytes([0b10101010, 0b01010101])] * 8, b"\0\2"))
    deep = np.where(LEFT, 0x1234, 0x1200).astype(">u2")
    (root / "deep_key.png").write_bytes(png(16, 0, [row.tobytes() for row in deep], b"\x12\x34"))
    alpha = GREY[..., None] / 255
    white = {"hidden_colour.png": COLOURS, "la.png": rgb(GREY)}
    blue = ("index.png", "index.gif", "alpha_palette.png", "colour_key.png")
    return {name: np.where(LEFT[..., None], 255, pixels) for name, pixels in white.items()} | {
        **dict.fromkeys(blue, half((255, 255, 255), (0, 0, 255))),
        "two_bits.png": half((255, 255, 255), (85, 85, 85)),
        "deep_key.png": half((255, 255, 255), (0x12, 0x12, 0x12)),
        "rgba.png": alpha * COLOURS + (1 - alpha) * 255,
    }


def write_rotated(root: Path) -> dict[str, np.ndarray]:
    """Files whose left half is the top, as their EXIF orientation states, one with EXIF data that are damaged."""
    image, orientation = Image.fromarray(half((0, 0, 0), (255, 255, 255))), Image.Exif()
    orientation[0x0112] = 6
    image.save(root / "rotated.png", exif=orientation)
    image.save(root / "malformed.jpg", quality=100, exif=malformed_exif())
    return dict.fromkeys(["rotated.png", "malformed.jpg"], half((0, 0, 0), (255, 255, 255)).transpose(1, 0, 2))


def write_links(root: Path, elsewhere: Path) -> dict[str, np.ndarray]:
    """Links to a picture and to a folder of pictures, which links back; and a link that leads nowhere."""
    elsewhere.mkdir()
    Image.fromarray(COLOURS).save(elsewhere / "linked.png")
    (elsewhere / "loop").symlink_to(root, target_is_directory=True)
    (root / "folder").symlink_to(elsewhere, target_is_directory=True)
    (root / "picture.png").symlink_to(elsewhere / "linked.png")
    (root / "nowhere.png").symlink_to(root / "missing.png")
    return {"picture.png": COLOURS, "folder/linked.png": COLOURS}


def write_broken(root: Path) -> None:
    """Files with the ending of a picture that cannot be decoded."""
    noise = Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), np.uint8))
    for name in ("truncated.png", "truncated.jpg", "truncated.gif"):
        noise.save(root / name)
        (root / name).write_bytes((root / name).read_bytes()[:600])
    (root / "text.jpg").write_text("not a picture")
    (root / "postscript.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    (root / "key.png").write_bytes(png(16, 2, [bytes(48)] * 8, bytes(6)))
    Image.fromarray(GREY.astype(np.float32)).save(root / "large_floats.tif")
    Image.fromarray(GREY.astype(np.int32)).save(root / "integers.tif")


def write_others(root: Path) -> None:
    """Files that are not pictures, or hidden."""
    for name in ("notes.txt", "table.csv", "README", "film.mpg", "drawing.eps", ".hidden.png"):
        (root / name).write_text("")
    for name in (".thumbnails", "__MACOSX"):
        (root / name).mkdir()
        Image.fromarray(COLOURS).save(root / name / "plain.png")


def write(root: Path) -> dict[str, np.ndarray]:
    """Fills the folder. Returns the pixels of each picture that can be decoded, by its name."""
    root.mkdir()
    write_broken(root)
    write_others(root)
    good = write_eight_bits(root) | write_other_modes(root) | write_transparent(root)
    return good | write_rotated(root) | write_links(root, root.with_name("elsewhere"))
