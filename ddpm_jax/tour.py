"""What `tour` does: the mathematics of diffusion in pictures, tied together by one page of HTML."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from string import Template

import jax.numpy as jnp
from tqdm import tqdm

import ddpm_jax
from ddpm_jax import workdir
from ddpm_jax.data import Data, dead_leaves, digits, load, mnist_5000, tfds_images
from ddpm_jax.diffusion import gaussian, parameterizations, samplers
from ddpm_jax.encodings import evenly
from ddpm_jax.experiment import bind, keys, labels, resolved, sampler_fn
from ddpm_jax.files import whole_folder
from ddpm_jax.lessons import CHAINS, DRAWN, Lesson, Subject, lessons, memory

DATA: Mapping[str, Callable[[], Data]] = {
    "digits": digits,
    "mnist_5000": mnist_5000,
    "dead_leaves": dead_leaves,
    "mnist": partial(tfds_images, "mnist", (28, 28, 1)),
    "fashion_mnist": partial(tfds_images, "fashion_mnist", (28, 28, 1)),
    "cifar10": partial(tfds_images, "cifar10", (32, 32, 3)),
}
"""The data sets that a tour can be about without a run."""
SEEN = 2000
"""Training images that are looked at, at most."""
MARK = '<meta name="generator" content="ddpm_jax tour">'


def tour(source: str, out: Path, overwrite: bool) -> str:
    """Writes the tour of a data set or of the run in a workdir to the folder `out`, and says so in a line.

    Raises ValueError if `source` is neither, has no images, or if `out` exists and is no tour to be overwritten.
    """
    check_replaceable(out, overwrite)
    subject = subject_of(source)
    with whole_folder(out) as part:
        made = []
        for number, lesson in enumerate(tqdm(lessons(subject), total=9, disable=None, leave=False), start=1):
            picture = part / f"{number}_{lesson.name}.png"
            lesson.figure.savefig(picture, dpi=110)
            made.append((lesson, picture.read_bytes()))
        (part / "index.html").write_text(page(source, made), encoding="utf-8")
    return f"{len(made)} pictures, and the page that explains them: {out / 'index.html'}"


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Raises ValueError if something is at `out`, unless it is a tour that is to be overwritten."""
    if not out.exists():
        return
    index = out / "index.html"
    ours = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")
    strangers = [] if not ours else [path for path in out.iterdir() if path != index and path.suffix != ".png"]
    if not (overwrite and ours) or strangers:
        raise ValueError(
            f"--out {out} exists: choose another folder" + ("" if overwrite else ", or --overwrite a tour")
        )


def subject_of(source: str) -> Subject:
    """The images and the model that a tour of `source` is about."""
    if Path(source).is_dir():
        return _of_run(Path(source))
    if source not in DATA:
        raise ValueError(f"{source} is neither the folder of a run nor one of {', '.join(DATA)}")
    return _of_data(DATA[source]())


def _of_data(data: Data) -> Subject:
    codec, process = (
        evenly(data.levels or 256),
        gaussian.process(CHAINS["linear"], gaussian.discretized(data.levels or 256)),
    )
    train, test = (codec.encode(keys(0, 1), jnp.asarray(_few(data, split)["image"])) for split in ("train", "test"))
    reading, network = parameterizations.x0(process), memory(process, train)
    return Subject(
        train=train,
        test=test,
        codec=codec,
        process=process,
        parameterization=reading,
        network=network,
        sampler=samplers.ddpm(process, reading, network),
        told=f"the best of all models of just these {len(train)} training images, which needs no network and can only "
        "give them back (<code>ddpm-jax tour DIR</code>, for the folder of a run, shows a network that learned)",
    )


def _of_run(folder: Path) -> Subject:
    run = workdir.load(folder)
    experiment, weights = resolved(run.experiment, run.params)
    if len(experiment.data.image_shape) != 3:
        raise ValueError(
            f"{folder}: the tour is about images, this run's data have shape {experiment.data.image_shape}"
        )
    few, told = [_few(experiment.data, split) for split in ("train", "test")], labels(experiment, DRAWN)
    images = [experiment.codec.encode(keys(0, len(each["image"])), jnp.asarray(each["image"])) for each in few]
    named = [None, None] if told is None else [jnp.asarray(each["label"]) for each in few]
    drawn = None if told is None else jnp.asarray(told)
    return Subject(
        train=images[0],
        test=images[1],
        codec=experiment.codec,
        process=experiment.process,
        parameterization=experiment.parameterization,
        network=bind(experiment, weights),
        sampler=sampler_fn(run.experiment)(run.params, drawn),
        told=f"the network of the run <code>{html.escape(str(folder))}</code> after {run.step} steps",
        train_labels=named[0],
        test_labels=named[1],
        drawn_labels=drawn,
    )


def _few(data: Data, split: str) -> dict:
    source = data.open(split)
    return load(source, range(min(SEEN, len(source))))


def page(source: str, made: Sequence[tuple[Lesson, bytes]]) -> str:
    """The page: it holds its pictures, so that the file alone can be sent around."""
    facts = {"version": ddpm_jax.__version__, "source": html.escape(source)}
    for lesson, picture in made:
        inside = base64.b64encode(picture).decode()
        facts |= {**lesson.facts, lesson.name: f"data:image/png;base64,{inside}"}
    template = resources.files(ddpm_jax).joinpath("tour.html").read_text(encoding="utf-8")
    return Template(template).substitute(facts)
