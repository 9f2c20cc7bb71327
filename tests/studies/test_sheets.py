"""A study is one picture in a file, made by the command `study`, and never overwritten unasked."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from studies.models import pulses_run, shrinking_run

from ddpm_jax import figures
from ddpm_jax.commands import main
from ddpm_jax.studies.requests import StudyRequest
from ddpm_jax.studies.sheets import check_data, study_to_file


def test_a_study_is_a_picture_never_overwritten(finished, tmp_path, capsys):
    out = tmp_path / "shared.png"
    command = ["study", "shared", str(finished), "--num", "3", "--times", "50", "10", "--out", str(out)]
    assert main(command) == 0
    assert "2 rows of 4 images" in capsys.readouterr().out
    width, height = Image.open(out).size
    assert width > height > 48
    assert main(command) == 2 and "--overwrite" in capsys.readouterr().err


def test_the_picture_is_decided_by_its_provenance(finished, tmp_path):
    pictures = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        request = StudyRequest("denoise", finished, tmp_path / f"{name}.png", num=2, seed=seed)
        assert study_to_file(request).endswith(f"in {request.out}")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    records = [figures.provenance_of(tmp_path / f"{name}.png") for name in "abc"]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert records[0] == records[1] != records[2] and not np.array_equal(pictures[0], pictures[2])
    assert records[2]["study"]["seed"] == 2 and records[2]["checkpoint"] == 12


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_restored_images_are_three_rows(finished, tmp_path, kind):
    out = tmp_path / f"{kind}.png"
    assert main(["study", kind, str(finished), "--num", "5", "--out", str(out)]) == 0
    assert Image.open(out).size == (5 * 50 + 2, 3 * 50 + 2)


@pytest.mark.parametrize(
    "options, message",
    [
        (["shared", "--times", "51"], "--times must be between 1 and 50, got 51"),
        (["chain", "--times", "-1"], "--times must be between 0 and 50, got -1"),
        (["shared", "--shares", "0.5"], "--shares applies to interpolate, not to shared"),
        (["neighbours", "--times", "5"], "--times applies to shared, interpolate, chain, not to neighbours"),
        (["inpaint", "--annealed"], "--annealed applies to denoise, not to inpaint"),
        (["progressive", "--num", "0"], "--num must be at least 1, got 0"),
        (["progressive", "--seed", "-1"], "a seed must be between 0 and 2^32 - 1, got -1"),
        (["denoise", "--noise", "0"], "--noise, a standard deviation, must be above 0, got 0.0"),
        (["progressive", "--out", "x.npz"], "end it in .png"),
    ],
)
def test_mistakes_are_one_line_with_the_way_out(finished, capsys, options, message):
    assert main(["study", options[0], str(finished), *options[1:]]) == 2
    assert message in capsys.readouterr().err


def test_a_study_of_images_refuses_sequences():
    sequences = pulses_run(5)
    check_data("chain", sequences)
    check_data("progressive", shrinking_run())
    with pytest.raises(ValueError, match=r"progressive needs images.*shape \(20,\): choose chain, denoise, inpaint"):
        check_data("progressive", sequences)


def test_a_folder_that_is_no_workdir_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a workdir"):
        study_to_file(StudyRequest("chain", Path(tmp_path)))
