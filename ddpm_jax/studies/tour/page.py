"""The tour: the mathematics of diffusion in pictures, on one page of HTML."""

import base64
import html
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import ddpm_jax
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.studies.requests import TourRequest
from ddpm_jax.studies.tour import forward, reverse, times
from ddpm_jax.studies.tour.lesson import Lesson
from ddpm_jax.studies.tour.subject import Subject, subject_of
from ddpm_jax.system.files import whole_folder

LESSONS: tuple[Callable[[Subject], Lesson], ...] = (
    lambda subject: forward.two_states(),
    forward.noising,
    forward.variance,
    forward.histogram,
    lambda subject: times.all_schedules(),
    lambda subject: times.embedding(),
    lambda subject: reverse.true_reverse_step(),
    reverse.reverse_chain,
    reverse.bound_terms,
)
"""The lessons in the order of the page."""
MARK = '<meta name="generator" content="ddpm_jax tour">'
"""The tag by which a page is recognized as a tour."""


def tour(request: TourRequest, reporter: Reporter | None = None) -> str:
    """Draws the tour of a data set or of a run into a folder. Returns a line that names the page.

    Raises ValueError if the source is neither a data set nor a run, if its data are not images, or if the folder exists
    and is not a tour that may be overwritten.
    """
    check_replaceable(request.out, request.overwrite)
    subject = subject_of(request.source, request.optimal)
    with whole_folder(request.out) as part:
        drawn = []
        for number, draw in enumerate((reporter or Reporter()).track(LESSONS, "picture"), start=1):
            lesson = draw(subject)
            picture = part / f"{number}_{lesson.name}.png"
            lesson.figure.savefig(picture, dpi=110)
            drawn.append((lesson, picture.read_bytes()))
        (part / "index.html").write_text(page(request.source, drawn), encoding="utf-8")
    return f"{len(drawn)} pictures, and the page that explains them: {request.out / 'index.html'}"


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Raises ValueError if `out` exists, unless `overwrite` is true and `out` holds a tour and nothing else."""
    if not out.exists():
        return
    if not overwrite:
        raise ValueError(f"--out {out} exists: choose another folder, or replace a tour with --overwrite")
    index = out / "index.html"
    is_tour = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")
    if not is_tour or any(path != index and path.suffix != ".png" for path in out.iterdir()):
        raise ValueError(f"--out {out} exists and holds something other than a tour: choose another folder")


def page(source: str, drawn: Sequence[tuple[Lesson, bytes]]) -> str:
    """The page as HTML, with the pictures embedded: it needs no other file. `drawn` has each lesson's PNG as bytes."""
    facts = {"version": ddpm_jax.__version__, "source": html.escape(source)}
    for lesson, picture in drawn:
        encoded = base64.b64encode(picture).decode()
        facts |= {**lesson.facts, lesson.name: f"data:image/png;base64,{encoded}"}
    template = resources.files("ddpm_jax.studies.tour").joinpath("tour.html").read_text(encoding="utf-8")
    return Template(template).substitute(facts)
