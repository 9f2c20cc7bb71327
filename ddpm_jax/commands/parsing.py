"""Parsing of command lines by tyro: the options of a command as a dataclass, and the knobs of an experiment."""

import functools
import inspect
import io
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import tyro

Request = TypeVar("Request")


class Usage(ValueError):
    """A mistake in the command line itself, whose traceback would not help."""

    is_usage = True


def parse(request: type[Request], args: list[str], command: str) -> Request:
    """The request that the arguments describe; fields without a default are positional. Raises Usage with one line."""
    return _cli(request, args, f"ddpm-jax {command}", tyro.conf.PositionalRequiredArgs)


def parse_optional_first(request: type[Request], args: list[str], command: str) -> Request:
    """Like `parse`, but the first argument may be the value of the request's first field, without the option's name."""
    if args and not args[0].startswith("-"):
        first = next(iter(request.__dataclass_fields__))  # type: ignore[attr-defined]
        args = [f"--{first}", *args]
    return parse(request, args, command)


class Parsed(NamedTuple):
    """A command line that starts with an experiment."""

    path: Path
    """The experiment file."""
    function: Callable
    """Its function `experiment`."""
    knobs: dict[str, Any]
    request: Any


def parse_with_experiment(
    request: type, args: list[str], command: str, summary: str, options: Mapping[str, str] | None = None
) -> Parsed:
    """The experiment named by the first argument, its knobs, and the request. Raises Usage with one line.

    The defaults of the knobs are those of the run, if the experiment file lies in its workdir. `options` has the names
    of options by field, where they differ.
    """
    if args[:1] in (["-h"], ["--help"]):
        print(f"{summary}\n\nEach experiment has its own options: ddpm-jax {command} EXPERIMENT --help lists them.")
        print("ddpm-jax experiments lists the experiments that come with the library.")
        raise SystemExit(0)
    if not args or args[0].startswith("-"):
        raise Usage(f"name an experiment: ddpm-jax {command} EXPERIMENT ...; ddpm-jax experiments lists them")
    for field, option in (options or {}).items():  # such as "from", which cannot be the name of a field
        request.__annotations__[field] = Annotated[request.__annotations__[field], tyro.conf.arg(name=option)]
    from ddpm_jax.runs import experiment_files, workdir

    path = experiment_files.find(args[0])
    function = experiment_files.read(path)
    own = workdir.knobs_of(path)

    def both(knobs: Any, request: Any) -> tuple[dict[str, Any], Any]:
        return knobs, request

    both.__doc__ = inspect.getdoc(function)
    both.__annotations__ |= {
        "knobs": Annotated[dict[str, Any], tyro.conf.arg(constructor=_returning_knobs(function, own))],
        "request": request,
    }
    knobs, given = _cli(both, args[1:], f"ddpm-jax {command} {args[0]}")
    return Parsed(path, function, knobs, given)


def _returning_knobs(function: Callable, own: Mapping[str, Any]) -> Callable:
    """A function with the signature of `function` that returns its arguments; `own` replaces defaults."""
    returning: Any = functools.wraps(function)(lambda **knobs: knobs)
    signature = inspect.signature(function)
    parameters = [each.replace(default=own.get(name, each.default)) for name, each in signature.parameters.items()]
    returning.__signature__ = signature.replace(parameters=parameters, return_annotation=dict[str, Any])
    return returning


def _cli(target: Any, args: list[str], prog: str, *config: Any) -> Any:
    """tyro's result. Errors are raised as Usage instead of printed; --help is printed and exits."""
    cli = functools.partial(tyro.cli, target, args=args, prog=prog, config=(tyro.conf.OmitArgPrefixes, *config))
    if "--help" in args or "-h" in args:
        return cli()
    printed = io.StringIO()
    try:
        # with standard output redirected as well, tyro draws no boxes and uses no colours
        with redirect_stderr(printed), redirect_stdout(printed):
            return cli()
    except SystemExit:
        raise Usage(f"{_message(printed.getvalue())} ({prog} --help lists the options)") from None


def _message(printed: str) -> str:
    """The error that tyro printed, and the nearest option. Rules separate its title, the error and similar options."""
    sections: list[list[str]] = [[]]
    for line in printed.splitlines():
        text = line.strip()
        if text and not text.strip("-"):
            sections.append([])
        else:
            sections[-1].append(text)
    _, error, *others = (" ".join(filter(None, section)) for section in sections)
    error = re.sub(r"no type matching (\S+) could be instantiated from \['(.*?)'\].*", r"\2 is not one of \1", error)
    similar = [text.removeprefix("Perhaps you meant:").split()[0] for text in others if text.startswith("Perhaps")]
    return f"{error}: did you mean {similar[0]}?" if similar else error
