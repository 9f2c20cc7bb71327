"""Compares an experiment with the numbers of its paper: verify EXPERIMENT [--workdir DIR --json FILE --knob value]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse_with_experiment
    from ddpm_jax.runs.requests import VerifyRequest

    parsed = parse_with_experiment(VerifyRequest, args, "verify", __doc__ or "")
    request: VerifyRequest = parsed.request

    from ddpm_jax.runs import experiment_files, workdir
    from ddpm_jax.runs.verify import markdown, table, verify
    from ddpm_jax.system.files import check_writable, write_json

    if request.json is not None:
        check_writable(request.json)
    if request.workdir is not None:
        workdir.check_owner(request.workdir, parsed.path, parsed.knobs)
    rows = verify(experiment_files.build(parsed.function, parsed.knobs), request.workdir)
    command = " ".join(arg for arg in args if arg != "--markdown")
    print(markdown(command, rows) if request.markdown else table(rows))
    if request.json is not None:
        write_json(request.json, [row._asdict() for row in rows])
    return int(any(row.agrees is False for row in rows))
