"""Runs of several processes, as on a pod: JAX's own runtime between them, on CPUs with two fake devices each."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from children import environment

import ddpm_jax

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def start(workdir: Path, count: int, *options: str) -> list[subprocess.Popen]:
    """The training of the tiny run in this number of processes; their output goes to files beside the workdir."""
    return launch(workdir, count, "train", str(TINY), "--workdir", str(workdir), *options)


def launch(
    workdir: Path, count: int, *arguments: str, last: tuple[str, ...] = (), folders: Sequence[Path | None] = (None,) * 4
) -> list[subprocess.Popen]:
    """A command in this number of processes of two devices each; their output goes to files beside the workdir.

    The last process has the arguments `last` besides; process n runs in ``folders[n]``.
    """
    command = [sys.executable, "-m", "ddpm_jax", *arguments]
    cluster = ["--coordinator", f"localhost:{free_port()}", "--num-processes", str(count)]
    started, there = [], environment(devices=2) | {"PYTHONUNBUFFERED": "1"}
    for process in range(count):
        with output_of(workdir, process).open("w") as out:
            more = last if process == count - 1 else ()
            every = [*command, *cluster, "--process-id", str(process), *more]
            started.append(
                subprocess.Popen(every, env=there, stdout=out, stderr=subprocess.STDOUT, cwd=folders[process])
            )
    return started


def output_of(workdir: Path, process: int) -> Path:
    return workdir.with_name(f"{workdir.name}_{process}.txt")


def printed(workdir: Path, count: int) -> str:
    return "\n".join(output_of(workdir, process).read_text() for process in range(count))


def ended(started: list[subprocess.Popen], seconds: float) -> list[int | None]:
    """Their exit statuses, None for one that is still there after so long; that one is killed."""
    until = time.monotonic() + seconds
    statuses = []
    for process in started:
        try:
            statuses.append(process.wait(max(0.1, until - time.monotonic())))
        except subprocess.TimeoutExpired:
            process.kill()
            statuses.append(None)
    return statuses


def until_step(workdir: Path, step: int, started: list[subprocess.Popen], seconds: float = 120) -> None:
    """Waits until the run has logged this step."""
    until = time.monotonic() + seconds
    while f"step {step}/" not in printed(workdir, 1):
        alive = all(process.poll() is None for process in started)
        if time.monotonic() > until or not alive:
            ended(started, 0)
            pytest.fail(printed(workdir, len(started)))
        time.sleep(0.1)


def close(one: Path, other: Path) -> None:
    """The same log and parameters, but for the order in which numbers are added."""
    logs = [[json.loads(row) for row in (each / "metrics.jsonl").read_text().splitlines()] for each in (one, other)]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    np.testing.assert_allclose(*([row["loss"] for row in log] for log in logs), rtol=1e-4)
    runs = [ddpm_jax.load(each) for each in (one, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), runs[0].params, runs[1].params)


@pytest.mark.slow
def test_parameters_split_over_processes_are_those_of_one(tmp_path):
    """Wide enough that fsdp splits some of them."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert ended(start(run, 2, "--width", "48", "--mesh", "data=2,fsdp=2"), 240) == [0, 0], printed(run, 2)
    shared = re.search(r"([\d,]+) of them sharded over fsdp", printed(run, 1))
    assert shared and int(shared[1].replace(",", "")) > 100_000
    assert ended(start(whole, 1, "--width", "48"), 240) == [0]
    close(whole, run)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_are_the_run_of_one(finished, tmp_path, count):
    run = tmp_path / "run"
    previews = () if count == 4 else ("--sample-every", "0")  # the longest part; of two processes one test draws
    assert ended(start(run, count, *previews), 240) == [0] * count, printed(run, count)
    assert f"{2 * count} cpu device(s) in {count} processes" in printed(run, 1)
    assert "step" not in output_of(run, 1).read_text().replace("checkpoints", "")  # process 0 reports
    close(finished, run)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_draw_and_measure_what_one_does(finished, tmp_path, count):
    """The same images to the bit, and the same figures."""
    run, draw = shutil.copytree(finished, tmp_path / "run"), ("--num", "21", "--batch-size", "2", "--steps", "5")
    measure = ("--num", "20", "--times", "4", "--batch-size", "3", "--samples", "16", "--metrics", "bpd", "parzen")
    found = []
    for processes in (1, count):
        out = tmp_path / f"{processes}.npz"
        started = launch(run, processes, "sample", str(run), "--out", str(out), *draw)
        assert ended(started, 240) == [0] * processes, printed(run, processes)
        assert printed(run, processes).count(f"21 images in {out}") == 1
        started = launch(run, processes, "evaluate", str(run), *measure)
        assert ended(started, 240) == [0] * processes, printed(run, processes)
        assert printed(run, processes).count("Parzen window") == 1
        found.append((np.load(out)["arr_0"], json.loads((run / "evaluation.json").read_text())[-1]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    left = {path.name for path in tmp_path.iterdir()} - {"run", "run_0.txt", "run_1.txt", "run_2.txt", "run_3.txt"}
    assert left == {"1.npz", f"{count}.npz"} and not list(run.glob("evaluation_*"))


@pytest.mark.slow
def test_several_processes_evaluate_during_training_as_one_does(tmp_path):
    """The rows, and the choice of the best checkpoint, but for the order of sums."""
    line, found = TINY.with_name("line.py"), []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        options = ("--workdir", str(run), "--keep-best", "frechet", "--samples", "18")
        started = launch(run, processes, "train", str(line), *options)
        assert ended(started, 240) == [0] * processes, printed(run, processes)
        assert printed(run, processes).count("Frechet distance") == 3
        rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
        found.append([row for row in rows if "bpd" in row])
        assert (run / "evaluation.png").exists()
        assert ddpm_jax.load(run, checkpoint="best").step == min(found[-1], key=lambda r: r["frechet_pixels"])["step"]
    for name in ("step", "bpd", "frechet_pixels"):
        np.testing.assert_allclose(*([row[name] for row in rows] for rows in found), rtol=1e-3)


@pytest.mark.slow
def test_processes_fill_a_folder_together(finished, tmp_path):
    run, out = shutil.copytree(finished, tmp_path / "run"), tmp_path / "folder"
    options = ("--num", "21", "--batch-size", "2", "--steps", "5", "--out", str(out))
    assert ended(launch(run, 2, "sample", str(run), *options), 240) == [0, 0], printed(run, 2)
    assert sorted(path.name for path in out.iterdir()) == [f"{n:06d}.png" for n in range(21)]


@pytest.mark.slow
def test_processes_with_different_options_do_not_work_together(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    started = launch(run, 2, "evaluate", str(run), "--num", "4", "--times", "3", last=("--seed", "1"))
    assert ended(started, 100) == [2, 2], printed(run, 2)
    assert printed(run, 2).count("the processes were started with different options") == 2


@pytest.mark.slow
def test_a_workdir_that_one_process_cannot_see_ends_all_of_them(finished, tmp_path):
    """The workdir is named relative to the folder of each process, as on hosts with other mounts."""
    run = shutil.copytree(finished, tmp_path / "0" / "run")
    (tmp_path / "1").mkdir()
    for command in ("sample", "evaluate"):
        started = launch(run, 2, command, "run", "--num", "4", folders=[tmp_path / "0", tmp_path / "1"])
        assert ended(started, 100) == [2, 2], printed(run, 2)
        assert "is not a workdir" in output_of(run, 1).read_text() and "another process cannot" in printed(run, 1)


@pytest.mark.slow
def test_an_output_that_exists_is_refused_by_all_processes(finished, tmp_path):
    run, out = shutil.copytree(finished, tmp_path / "run"), tmp_path / "thesis.npz"
    out.write_text("thesis")
    started = launch(run, 2, "sample", str(run), "--num", "4", "--out", str(out))
    assert ended(started, 240) == [2, 2], printed(run, 2)
    assert "choose another name" in printed(run, 1) and "process 0 cannot write" in output_of(run, 1).read_text()
    assert out.read_text() == "thesis"


@pytest.mark.parametrize("which", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_preemption_notice_to_one_stops_all_at_the_same_step(tmp_path, which):
    run = tmp_path / "run"
    started = start(run, 2, "--num-steps", "100000", "--save-every", "100000", "--sample-every", "0")
    until_step(run, 10, started)
    started[which].send_signal(signal.SIGTERM)
    assert ended(started, 60) == [143, 143], printed(run, 2)
    lines = [line for line in printed(run, 2).splitlines() if line.startswith("stopped and saved at step")]
    assert len(lines) == 2 and lines[0] == lines[1]
    assert lines[0].split()[5] == str(ddpm_jax.load(run).step)


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_two_processes_the_steps_since_the_one_before(finished, tmp_path):
    run = tmp_path / "run"
    assert ended(start(run, 2), 240) == [0, 0], printed(run, 2)
    for path in (run / "checkpoints" / "12" / "rest").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[::-1])
    assert ended(start(run, 2), 240) == [0, 0], printed(run, 2)
    assert "step 10/" in printed(run, 1) and "step 8/" not in printed(run, 1)
    assert [path.name.split("-")[0] for path in (run / "damaged").iterdir()] == ["12"]
    close(finished, run)


@pytest.mark.slow
def test_processes_start_from_another_run_change_its_periods_and_are_refused_together(finished, tmp_path):
    run, options = tmp_path / "run", ("--from", str(finished), "--num-steps", "1")
    assert ended(start(run, 2, *options), 240) == [0, 0], printed(run, 2)
    leaves = [jax.tree.leaves(params) for params in (ddpm_jax.load(finished).params, ddpm_jax.load(run, "raw").params)]
    moved = max(float(np.abs(a - b).max()) for a, b in zip(*leaves, strict=True))
    assert 0 < moved < 2.01e-3  # the first step of Adam moves a parameter by the learning rate at most
    assert ended(start(run, 2, "--num-steps", "3", "--save-every", "2"), 240) == [0, 0], printed(run, 2)
    assert ddpm_jax.load(run).step == 3
    assert ended(start(run, 2, "--num-steps", "3", "--dropout", "0.3"), 240) == [2, 2], printed(run, 2)
    assert "--dropout 0.1, not 0.3" in printed(run, 1) and "process 0 cannot use" in printed(run, 2)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_where_one_is_killed_the_other_ends_and_the_restart_goes_on(tmp_path, which):
    run = tmp_path / "run"
    options = ("--num-steps", "100000", "--save-every", "10")
    started = start(run, 2, *options)
    until_step(run, 30, started)
    started[which].kill()
    killed = time.monotonic()
    statuses = ended(started, 90)
    assert statuses[1 - which] not in (0, None), printed(run, 2)
    assert time.monotonic() - killed < 60
    again = start(run, 2, *options)
    until_step(run, 60, again)
    assert "resuming" in printed(run, 1) and "step 2/" not in printed(run, 1)
    again[0].send_signal(signal.SIGTERM)
    assert ended(again, 60) == [143, 143]
