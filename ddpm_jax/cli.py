"""The command line: each command a thin call into the hall.

Exit status 0; 1 where `verify` finds a difference; 2 with one line on standard error for what the user can put right;
130 after Ctrl-C.
"""

import difflib
import functools
import inspect
import io
import logging
import math
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ddpm_jax import cpu

# jax and the rooms are imported by the commands that need them, so that --help answers at once

TRACEBACK = "DDPM_JAX_TRACEBACK"


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    be_brief()
    keep_programs()
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        return _dispatch(name, rest)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError) as error:
        if os.environ.get(TRACEBACK):
            raise
        line = " ".join(str(error).split()) or type(error).__name__
        if "No space left on device" in line:
            line = "no space left on device: what was saved before stays. Free some, and the same command goes on"
        print(f"ddpm-jax {name}: {line}  ({TRACEBACK}=1 shows where)", file=sys.stderr)
        return 2


AFTERMATH = ("Event loop is closed", "handle is closed", "No space left on device")
"""What threads in the background say when a write failed, which is raised besides."""


@functools.cache
def be_brief() -> None:
    """Keeps from the screen what Orbax tells of its every move, and what threads say of a failure that is raised."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for module, name in ((sys, "unraisablehook"), (threading, "excepthook")):
        tell = getattr(module, name)
        setattr(module, name, lambda told, tell=tell: _is_aftermath(told.exc_value) or tell(told))


def _is_aftermath(error: BaseException | None) -> bool:
    return any(text in str(error) for text in AFTERMATH)


def keep_programs() -> None:
    """What XLA compiles is kept in the user's cache folder, unless JAX's own variables say otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    # a CPU's programs may use instructions that another machine with the same home lacks
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.expanduser(home), "ddpm_jax", platform.node())
    )


class Usage(ValueError):
    """The command line itself is wrong: there is no traceback to show."""


def _dispatch(name: str, rest: list[str]) -> int:
    if name in ("-h", "--help"):
        return _help()
    if name == "--version":
        from ddpm_jax import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        print(f"ddpm-jax: there is no command {name!r}: {hint}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name]([_expanded(arg) for arg in rest]) or 0
    except Usage as error:
        print(f"ddpm-jax {name}: {error}", file=sys.stderr)
        return 2


def _expanded(arg: str) -> str:
    """~ is the home folder, also after the = of an option, where shells leave it."""
    option, equals, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    return option + equals + os.path.expanduser(value)


def _help() -> int:
    print("usage: ddpm-jax COMMAND ...\n")
    for name, command in COMMANDS.items():
        print(f"  {name:12} {(command.__doc__ or '').splitlines()[0]}")
    print("\nddpm-jax COMMAND --help shows the options of one.")
    return 0


def _parse(function: Callable, args: list[str], prog: str, *inner: Callable) -> Any:
    """Calls `function` with its arguments as tyro reads them; Usage with one line where they cannot be read.

    `inner` are functions whose arguments tyro takes from the same line.
    """
    _check_options([name for each in (function, *inner) for name in inspect.signature(each).parameters], args, prog)
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.cli(function, args=args, prog=prog, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise Usage(_one_line(printed.getvalue(), prog)) from None


def _check_options(names: list[str], args: list[str], prog: str) -> None:
    """Usage for an option that is none of the names, with the nearest that is."""
    names = [name.replace("_", "-") for name in names]
    known = {f"--{name}" for name in names} | {f"--no-{name}" for name in names} | {"--help"}
    for arg in args:
        option = arg.partition("=")[0].partition(".")[0].replace("_", "-")
        if option.startswith("--") and option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise Usage(f"there is no option {option}: {hint}({prog} --help lists the options)")


def _one_line(box: str, prog: str) -> str:
    """tyro's box of an error as a line: what is wrong, and where the help is."""
    plain = re.sub(r"\x1b\[[0-9;]*m|╭─.*╮", "", box)  # the colours, and the lids with their titles
    sections = [re.sub(r"[│╭╮╰╯]", " ", section) for section in re.split(r"[╭│╰] ?─+[ │╮╯]*\n", "\n" + plain)]
    text = [" ".join(re.sub(r"─+", " ", section).split()) for section in sections if section.strip(" ─\n")]
    return f"{text[0] if text else 'the arguments cannot be read'} ({prog} --help lists the options)"


def _with_knobs(recipe: Callable) -> Callable:
    """A function of the recipe's signature that returns its knobs instead of building the experiment."""

    knobs: Any = functools.wraps(recipe)(lambda **given: given)
    knobs.__signature__ = inspect.signature(recipe).replace(return_annotation=dict[str, Any])
    return knobs


def _experiment_first(rest: list[str], command: str) -> tuple[Path, Callable, str]:
    """The experiment that the first argument names: its file, its function and how to call the command in messages."""
    from ddpm_jax import recipes

    if rest[:1] in (["-h"], ["--help"]):
        print(inspect.getdoc(COMMANDS[command]))
        print(f"\nThe knobs are the experiment's own: ddpm-jax {command} EXPERIMENT --help shows them.")
        print("ddpm-jax experiments lists the experiments that come with the library.")
        raise SystemExit(0)
    if not rest or rest[0].startswith("-"):
        raise Usage(f"which experiment? ddpm-jax {command} EXPERIMENT ...; ddpm-jax experiments lists the shipped ones")
    path = recipes.find(rest[0])
    return path, recipes.read(path), f"ddpm-jax {command} {rest[0]}"


def train(rest: list[str]) -> int:
    """Trains an experiment, or goes on where its workdir stands: train EXPERIMENT --workdir DIR [--knob value ...]"""
    path, recipe, prog = _experiment_first(rest, "train")

    def arguments(
        workdir: Annotated[Path, tyro.conf.arg(help="the folder of the run")],
        knobs: Annotated[dict[str, Any], tyro.conf.arg(constructor=_with_knobs(recipe))],
        how: How,
    ) -> tuple[Path, dict[str, Any], How]:
        return workdir, knobs, how

    arguments.__doc__ = inspect.getdoc(recipe)
    folder, knobs, how = _parse(arguments, rest[1:], prog, recipe, How)
    from ddpm_jax.training import distributed
    from ddpm_jax.workdir import own_knobs

    cpu.keep_memory()
    distributed.join(how.coordinator, how.num_processes, how.process_id)
    knobs = own_knobs(folder, path, knobs)
    return _train(folder, path, recipe(**knobs), knobs, how)


@dataclass(frozen=True)
class How:
    """How a run is carried out, which may differ each time it goes on."""

    mesh: str | None = None
    """Devices on each axis, as data=4,fsdp=2; all of them on data by default."""
    accumulate: int = 1
    """Parts that each batch is computed in, one after the other: less memory, more time."""
    on_nan: Literal["stop", "skip"] = "stop"
    """At a loss that is not a number: stop, or leave that update out and count it."""
    workers: int = 16
    """Threads that read and decode a data set that is streamed."""
    profile: str | None = None
    """START:STOP, the steps to write a trace of, for TensorBoard."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where SLURM, Open MPI, Kubernetes or the TPU pod do not tell it."""
    num_processes: int | None = None
    """Of the run, with --coordinator."""
    process_id: int | None = None
    """Of this one, with --coordinator."""


def _train(folder: Path, path: Path, experiment: Any, knobs: dict[str, Any], how: How) -> int:
    from ddpm_jax import evaluate, workdir
    from ddpm_jax.advance import Setup
    from ddpm_jax.train import check, train
    from ddpm_jax.training import StopRequest, distributed, sharding

    mesh = None if how.mesh is None else sharding.parse(how.mesh)
    setup = Setup(mesh, how.accumulate, how.on_nan, how.workers, _span(how.profile))
    check(experiment, setup)  # first: what cannot run leaves no workdir behind
    if distributed.leads():
        new = workdir.prepare(folder, path, knobs)
        print(f"{'training' if new else 'going on'} in {folder}", flush=True)
    distributed.wait("the workdir is there")
    with StopRequest() as stop:
        step = int(train(experiment, folder, stop, setup).step)
    if stop.signal is not None and step < experiment.num_steps:
        print(f"stopped and saved at step {step} of {experiment.num_steps}: the same command goes on from there")
        return 0 if stop.signal == signal.SIGTERM else 128 + stop.signal
    if distributed.leads():
        samples = folder / "samples"
        measured = "" if distributed.alone() else f"; ddpm-jax evaluate {folder} measures it, on one machine"
        print(f"finished: {step} steps" + (f", samples in {samples}" if samples.exists() else "") + measured)
    if distributed.alone():
        try:
            evaluate.quick(folder)
        except (ValueError, FileNotFoundError) as error:  # data without a test split, say: the run is finished
            print(f"bits/dim not measured: {error}")
    return 0


def _span(text: str | None) -> tuple[int, int] | None:
    """START:STOP as two numbers. Raises Usage for anything else."""
    if text is None:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal()):
        raise Usage(f"--profile {text}: write it as START:STOP, two steps")
    return int(first), int(last)


def sample(rest: list[str]) -> int:
    """Draws images from a trained run: sample DIR [--num N --seed S --steps K --eta E --out FILE ...]"""
    return _parse(_sample, rest, "ddpm-jax sample")


def _sample(
    workdir: tyro.conf.Positional[Path],
    /,
    out: Path | None = None,
    num: int = 64,
    seed: int = 0,
    sampler: Literal["ancestral", "ddim"] | None = None,
    steps: int | None = None,
    eta: float | None = None,
    label: int | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
) -> int:
    """Draws images from a trained run. Image i depends on the seed and i alone.

    Args:
        workdir: the folder of the run.
        out: a .png (grid), a .npz (arr_0 uint8 [N, H, W, C]; arr_1 the labels), or a folder of PNGs; without it a
            grid in the run's samples/.
        num: how many images.
        seed: of the noise.
        sampler: the experiment's own by default.
        steps: how many of the T steps to take; all by default.
        eta: of DDIM, 0 (deterministic) to 1; implies --sampler ddim.
        label: the class, where the network is told one; each in turn by default.
        batch_size: images drawn at a time; another size may change the last bit of a pixel, nothing more.
        overwrite: replace an --out that exists.
    """
    from ddpm_jax.sample import Request, sample_to_file

    if sampler == "ancestral" and eta is not None:
        raise Usage(f"--eta {eta} is DDIM's: leave it out, or take --sampler ddim")
    eta = 0.0 if sampler == "ddim" and eta is None else eta
    request = Request(num, seed, sampler or ("ddim" if eta is not None else "own"), steps, eta, label, batch_size)
    print(sample_to_file(workdir, request, out, overwrite))
    return 0


def study(rest: list[str]) -> int:
    """Looks into a trained run, in a picture: study progressive|shared|interpolate|neighbours|chain|... DIR"""
    return _parse(_study, rest, "ddpm-jax study", Look)


@dataclass(frozen=True)
class Look:
    """What a study looks at; what is not given is each study's own choice."""

    num: int | None = None
    """Rows of progressive and neighbours; samples of shared; steps of interpolate; examples of the others."""
    seed: int = 0
    """Of the noise, and of the test examples."""
    times: tuple[int, ...] | None = None
    """The t of shared, interpolate and chain."""
    weights: tuple[float, ...] | None = None
    """Of the second image in interpolate, 0 to 1; by default as many as --num, evenly spaced."""
    split: Literal["test", "train"] = "test"
    """Whose images interpolate takes."""
    noise: float | None = None
    """That denoise adds, its deviation in units of x_0 (1), or the probability of each bit to be flipped (0.1)."""
    annealed: bool = False
    """Denoise multiplies with r to the power (T - s) / T in place of r."""
    missing: Literal["centre", "left", "right", "top", "bottom"] = "centre"
    """What inpaint fills in."""
    noised: bool = False
    """Inpaint holds what is known at the noise of each t, not clean."""


def _study(
    kind: tyro.conf.Positional[
        Literal["progressive", "shared", "interpolate", "neighbours", "chain", "denoise", "inpaint"]
    ],
    workdir: tyro.conf.Positional[Path],
    /,
    look: Look,
    out: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Looks into a trained run, as Ho et al. 2020 and Sohl-Dickstein et al. 2015 do.

    Args:
        kind: progressive, the estimates of x_0 as t falls; shared, samples that share x_t; interpolate, between two
            images at several t; neighbours, samples beside the nearest training images; chain, the forward and the
            reverse chain at several t, of points with the drift; denoise, test examples with noise, and restored;
            inpaint, test examples without a part, and filled in.
        workdir: the folder of the run.
        look: what to look at.
        out: a .png; without it one in the run's studies/.
        overwrite: replace an --out that exists.
    """
    from ddpm_jax.studies import Study, study_to_file

    print(study_to_file(workdir, Study(kind, **vars(look)), out, overwrite))
    return 0


def evaluate(rest: list[str]) -> int:
    """Measures a trained run: evaluate DIR [--metrics bpd --json FILE ...]"""
    return _parse(_evaluate, rest, "ddpm-jax evaluate")


def _evaluate(
    workdir: tyro.conf.Positional[Path],
    /,
    metrics: tuple[Literal["bpd", "K", "parzen"], ...] | None = None,
    split: Literal["test", "train"] = "test",
    num: int | None = None,
    times: int | None = None,
    batch_size: int = 120,
    seed: int = 0,
    clip: bool = True,
    samples: int = 10_000,
    json: Path | None = None,
) -> int:
    """Measures a trained run; the table goes to the screen and into evaluation.json in the workdir.

    Args:
        workdir: the folder of the run.
        metrics: bpd is the bound on the negative log-likelihood in bits per dimension, with its parts, and the
            progressive-coding curve; K is the bound on the log-likelihood of 2015; parzen the
            Parzen-window estimate from samples. The experiment chooses by default.
        split: of the data.
        num: only the first so many examples.
        times: look at so many random t per example instead of all: unbiased, faster, and without the curve.
        batch_size: examples looked at together.
        seed: of the noise.
        clip: hold estimates of x_0 in the range of the data where the experiment does, as Ho et al. 2020 did.
        samples: that parzen draws.
        json: also write the numbers here.
    """
    from ddpm_jax.evaluate import Protocol, evaluate_workdir

    evaluate_workdir(workdir, Protocol(metrics, split, num, times, seed, clip, samples), batch_size, json)
    return 0


def tour(rest: list[str]) -> int:
    """Shows the mathematics in pictures, on one page: tour [DIR or data set] [--out FOLDER]"""
    return _parse(_tour, rest, "ddpm-jax tour")


def _tour(source: tyro.conf.Positional[str] = "digits", /, out: Path = Path("tour"), overwrite: bool = False) -> int:
    """Shows the mathematics in pictures, on one page, for those who are learning it.

    Args:
        source: the folder of a run on images, or a data set: digits, mnist_5000, dead_leaves, mnist, fashion_mnist or
            cifar10.
        out: the folder for the pictures and index.html.
        overwrite: replace a tour that is there.
    """
    from ddpm_jax.tour import tour

    print(tour(source, out, overwrite))
    return 0


def plan(rest: list[str]) -> int:
    """Tells what an experiment costs, without training: plan EXPERIMENT [--mesh data=8,fsdp=4 --accelerator H100]"""
    _, recipe, prog = _experiment_first(rest, "plan")

    def arguments(
        knobs: Annotated[dict[str, Any], tyro.conf.arg(constructor=_with_knobs(recipe))], where: Where
    ) -> tuple[dict[str, Any], Where]:
        return knobs, where

    arguments.__doc__ = inspect.getdoc(recipe)
    knobs, where = _parse(arguments, rest[1:], prog, recipe, Where)
    from ddpm_jax.advance import Setup
    from ddpm_jax.plan import forecast, forecast_table, plan, table, with_devices
    from ddpm_jax.training import sharding
    from ddpm_jax.workdir import write_json

    mesh = None if where.mesh is None else sharding.parse(where.mesh)
    if mesh is not None:
        with_devices(math.prod(mesh.values()))
    costs = plan(recipe(**knobs), Setup(mesh, where.accumulate))
    print(table(costs))
    told = None
    if where.accelerator is not None:
        told = forecast(costs, where.accelerator, where.utilisation)
        print(forecast_table(told, costs, where.utilisation))
    if where.json is not None:
        write_json(where.json, costs._asdict() | ({} if told is None else {"forecast": told._asdict()}))
    return 0


@dataclass(frozen=True)
class Where:
    """What is planned for."""

    mesh: str | None = None
    """Devices on each axis, as data=8,fsdp=4, whether they are here or not; by default those that are."""
    accumulate: int = 1
    """Parts that each batch is computed in, one after the other."""
    accelerator: Literal["v4", "v5e", "v5p", "v6e", "A100", "H100", "H200"] | None = None
    """Tell whether it fits on these, and how long it takes."""
    utilisation: float = 0.4
    """Of the accelerator's peak."""
    json: Path | None = None
    """Also write the numbers here."""


def convert(rest: list[str]) -> int:
    """A diffusers folder into a workdir, or a workdir into such a folder: convert SOURCE TARGET [--weights ema|raw]"""
    return _parse(_convert, rest, "ddpm-jax convert")


def _convert(
    source: tyro.conf.Positional[Path],
    target: tyro.conf.Positional[Path],
    /,
    weights: Literal["ema", "raw"] | None = None,
    data: str | None = None,
    test_split: str | None = None,
    folder_of_images: str | None = None,
    test_percent: int | None = None,
) -> int:
    """Converts between a workdir and a folder of the diffusers library (UNet2DModel with its scheduler).

    Args:
        source: a folder with config.json, scheduler_config.json and safetensors, or a pipeline's; or a workdir.
        target: the workdir, or the pipeline's folder, to be made.
        weights: which parameters the diffusers folder holds, the average or the optimizer's; asked where it tells none.
        data: the TFDS data set that evaluate, study and train take; test_split is what it calls its test split.
        test_split: of that data set; test by default.
        folder_of_images: a folder or zip of pictures instead.
        test_percent: of those pictures, for the test split.
    """
    from ddpm_jax.convert import convert

    named = {
        "data": data,
        "test_split": test_split,
        "folder_of_images": folder_of_images,
        "test_percent": test_percent,
    }
    print(convert(source, target, weights, named))
    return 0


def verify(rest: list[str]) -> int:
    """Sets an experiment's figures beside its paper's: verify EXPERIMENT [--workdir DIR --json FILE --knob value]"""
    path, recipe, prog = _experiment_first(rest, "verify")

    def arguments(
        knobs: Annotated[dict[str, Any], tyro.conf.arg(constructor=_with_knobs(recipe))],
        workdir: Annotated[Path | None, tyro.conf.arg(help="a run, whose measurements are shown too")] = None,
        json: Annotated[Path | None, tyro.conf.arg(help="also write the lines here")] = None,
        markdown: Annotated[bool, tyro.conf.arg(help="print one row of a Markdown table instead")] = False,
    ) -> tuple[dict[str, Any], Path | None, Path | None, bool]:
        return knobs, workdir, json, markdown

    arguments.__doc__ = inspect.getdoc(recipe)
    knobs, folder, json, as_markdown = _parse(arguments, rest[1:], prog, recipe)
    from ddpm_jax.verify import markdown, table, verify
    from ddpm_jax.workdir import check_owner, own_knobs, write_json

    if folder is not None:
        knobs = own_knobs(folder, path, knobs)
        check_owner(folder, path, knobs)
    rows = verify(recipe(**knobs), folder)
    print(markdown(" ".join(rest).replace(" --markdown", ""), rows) if as_markdown else table(rows))
    if json is not None:
        write_json(json, [row._asdict() for row in rows])
    return int(any(row.agrees is False for row in rows))


def experiments(rest: list[str]) -> int:
    """Lists the experiments that come with the library."""
    from ddpm_jax import recipes

    for name, path in recipes.shipped().items():
        print(f"{name:24} {recipes.headline(path)}")
    return 0


def prepare(rest: list[str]) -> int:
    """Downloads and builds a TFDS data set, or builds it from files at hand: prepare NAME [--source DIR]"""
    return _parse(_prepare, rest, "ddpm-jax prepare")


def _prepare(name: tyro.conf.Positional[str], /, source: Path | None = None, data_dir: Path | None = None) -> int:
    """Builds a TFDS data set in the form that training reads. Needs the extra [prepare].

    Args:
        name: of the data set, as TFDS calls it.
        source: build from the files in this folder instead of downloading them.
        data_dir: where to; TFDS's own default otherwise.
    """
    from ddpm_jax.data.prepare import prepare

    try:
        print(prepare(name, source, data_dir))
    except ModuleNotFoundError as error:
        raise Usage(str(error)) from None
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "sample": sample,
    "study": study,
    "tour": tour,
    "evaluate": evaluate,
    "plan": plan,
    "verify": verify,
    "convert": convert,
    "experiments": experiments,
    "prepare": prepare,
}
