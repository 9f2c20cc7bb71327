"""Options of `study` and `tour`, with their help. Imports nothing heavy, so that --help answers at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["progressive", "shared", "interpolate", "neighbours", "chain", "denoise", "inpaint"]
"""The keys of ``studies.sheets.STUDIES``."""
Missing = Literal["centre", "left", "right", "top", "bottom"]
"""The parts of an example that `inpaint` can fill in."""


def _only(*kinds: Kind) -> dict[str, tuple[Kind, ...]]:
    """Metadata of an option that applies to these studies only."""
    return {"kinds": kinds}


@dataclass(frozen=True)
class StudyRequest:
    """Draws a picture of a trained run, as in Ho et al. 2020 and Sohl-Dickstein et al. 2015."""

    kind: Kind
    """progressive: estimates of x_0 as t falls.
    shared: samples that share x_t.
    interpolate: between two images at several t.
    neighbours: samples and their nearest training images.
    chain: the forward and the reverse chain at several t, for points with the drift.
    denoise: test examples with noise, and restored.
    inpaint: test examples with a missing part, and filled in."""
    workdir: Path
    """Folder of the run."""
    out: Path | None = None
    """Output, a .png. Default: in studies/ of the workdir."""
    num: int | None = None
    """Number of rows (progressive, neighbours), samples (shared), weights (interpolate) or examples (the others)."""
    seed: int = 0
    """Seed of the noise and of the choice of examples, 0 to 2^32 - 1."""
    times: tuple[int, ...] | None = field(default=None, metadata=_only("shared", "interpolate", "chain"))
    """Values of t (shared, interpolate, chain)."""
    weights: tuple[float, ...] | None = field(default=None, metadata=_only("interpolate"))
    """Weights of the second image, 0 to 1 (interpolate). Default: evenly spaced, as many as --num."""
    split: Literal["test", "train"] = field(default="test", metadata=_only("interpolate"))
    """Split of the two images (interpolate)."""
    noise: float | None = field(default=None, metadata=_only("denoise"))
    """Standard deviation of the added noise in units of x_0, or probability that a bit is flipped (denoise).
    Default: 1, or 0.1 for bits."""
    annealed: bool = field(default=False, metadata=_only("denoise"))
    """Multiply each step by r^((T - s) / T) instead of r (denoise)."""
    missing: Missing = field(default="centre", metadata=_only("inpaint"))
    """Part that is filled in (inpaint)."""
    noised: bool = field(default=False, metadata=_only("inpaint"))
    """Replace known pixels by samples at the noise level of each t, not by their clean values (inpaint)."""
    overwrite: bool = False
    """Replace an existing output."""

    def picture_options(self) -> dict[str, Any]:
        """The options that the picture depends on, apart from the run; they are recorded with it."""
        return {name: value for name, value in vars(self).items() if name not in ("workdir", "out", "overwrite")}


@dataclass(frozen=True)
class TourRequest:
    """Shows the mathematics of diffusion in pictures, on one page of HTML."""

    source: str = "digits"
    """Folder of a run on images, or a data set: digits, mnist_5000, dead_leaves, mnist, fashion_mnist or cifar10.
    The option's name may be left out."""
    out: Path = Path("tour")
    """Folder for the pictures and index.html."""
    overwrite: bool = False
    """Replace an existing tour."""
