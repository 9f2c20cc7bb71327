"""The options of `study` and `tour` agree with the code that defines their choices."""

import ast
import dataclasses
import inspect
import itertools
import re
from pathlib import Path
from typing import get_args

import numpy as np

from ddpm_jax.studies import requests
from ddpm_jax.studies.requests import Kind, Missing, StudyRequest, TourRequest
from ddpm_jax.studies.sheets import STUDIES
from ddpm_jax.studies.sohl_dickstein_2015 import hole
from ddpm_jax.studies.tour.subject import DATA


def help_of(request: type) -> dict[str, str]:
    """The help text of each option: the string below each field."""
    tree = ast.parse(inspect.getsource(requests))
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == request.__name__]
    pairs = itertools.pairwise(body)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def test_every_kind_is_a_study_and_is_explained():
    assert get_args(Kind) == tuple(STUDIES)
    assert tuple(re.findall(r"(\w+): ", help_of(StudyRequest)["kind"])) == tuple(STUDIES)


def test_the_help_of_an_option_names_the_studies_that_it_applies_to():
    for option in dataclasses.fields(StudyRequest):
        if "kinds" in option.metadata:
            assert set(option.metadata["kinds"]) < set(STUDIES)
            assert f"({', '.join(option.metadata['kinds'])})" in help_of(StudyRequest)[option.name]


def test_every_option_has_help():
    for request in (StudyRequest, TourRequest):
        assert set(help_of(request)) == {option.name for option in dataclasses.fields(request)}


def test_every_missing_part_is_a_different_hole():
    holes = [hole((10, 10, 1), missing) for missing in get_args(Missing)]
    assert len(np.unique(np.stack(holes), axis=0)) == len(holes)


def test_the_help_of_the_tour_names_its_data_sets():
    [named] = re.findall(r"data set: (.*?)\.", help_of(TourRequest)["source"])
    assert re.split(", | or ", named) == list(DATA)


def test_the_recorded_options_are_those_that_decide_the_picture():
    one = StudyRequest("chain", Path("run"), times=(1, 2))
    other = dataclasses.replace(one, workdir=Path("moved"), out=Path("x.png"), overwrite=True)
    assert one.picture_options() == other.picture_options()
    assert one.picture_options() != dataclasses.replace(one, times=(1, 3)).picture_options()
