"""Help: what each command and each experiment offers."""

import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import jax
import pytest

from ddpm_jax.commands import COMMANDS, main
from ddpm_jax.diffusion import samplers
from ddpm_jax.runs import accelerators, evaluate_requests, experiment_files, features, report, requests, statistics

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


def test_help_lists_the_knobs_with_defaults_and_meanings(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(TINY), "--help"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    assert re.search(r"--width INT\s+channels of the U-Net\.? \(default: 8\)", re.sub(r"[│\s]+", " ", printed))


@pytest.mark.parametrize("command", ["train", "plan"])
def test_help_before_an_experiment_is_named(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert not stop.value.code and "EXPERIMENT" in capsys.readouterr().out


def test_every_shipped_experiment_is_listed(capsys):
    assert main(["experiments"]) == 0
    printed = capsys.readouterr().out
    for name, path in experiment_files.shipped().items():
        assert name in printed and experiment_files.headline(path) in printed


@pytest.mark.parametrize(
    "command",
    [each for each in COMMANDS if each not in ("train", "plan", "verify")],  # these have the options of an experiment
)
def test_the_help_of_a_command_describes_every_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert "usage: ddpm-jax" in text and not re.search(r"│ --[\w-]+ [^│]*│\n│\s+\(default", text)


IMPORTED = """
import contextlib, sys
from ddpm_jax.__main__ import start
with contextlib.suppress(SystemExit):
    start()
print(sorted({"jax", "tyro"} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments, imported", [(["--help"], "[]"), (["sample", "--help"], "['tyro']")])
def test_help_imports_no_more_than_it_needs(arguments, imported):
    """The list of commands needs no library, the help of a command no jax."""
    command = [sys.executable, "-c", IMPORTED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == imported


def test_choices_are_those_of_the_place_that_defines_them():
    named = {
        requests.SamplerName: samplers.SAMPLERS,
        requests.SpacingName: samplers.SPACINGS,
        requests.ModelSpacingName: [*samplers.SPACINGS, "optimal"],
        requests.VarianceName: [*statistics.VARIANCES, "analytic"],
        evaluate_requests.MetricName: [*report.BOUND_TABLES, *report.ESTIMATES],
        evaluate_requests.FeatureName: [*features.RESIZINGS, "pixels"],
        requests.AcceleratorName: [each.name for each in accelerators.ACCELERATORS],
    }
    for choices, defined in named.items():
        assert list(get_args(choices)) == list(defined)


def test_main_changes_nothing_of_the_process_it_is_called_in(capsys):
    """What a process of its own is given: environment, hooks, JAX's configuration."""
    before = dict(os.environ), sys.unraisablehook, threading.excepthook, dict(jax.config.values)
    assert main(["experiments"]) == 0 and main(["plan", str(TINY), "--mesh", "data=8"]) == 0
    assert before == (dict(os.environ), sys.unraisablehook, threading.excepthook, dict(jax.config.values))
    assert logging.getLogger("absl").level != logging.CRITICAL
