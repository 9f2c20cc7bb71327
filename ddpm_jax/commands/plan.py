"""Computes the cost of an experiment without training it: plan EXPERIMENT [--mesh data=8,fsdp=4 --accelerator H100]"""

import math


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse_with_experiment
    from ddpm_jax.runs.requests import PlanRequest

    parsed = parse_with_experiment(PlanRequest, args, "plan", __doc__ or "")
    request: PlanRequest = parsed.request

    from ddpm_jax.runs import experiment_files
    from ddpm_jax.runs.plan import forecast, forecast_table, plan, table, with_devices
    from ddpm_jax.system.files import check_writable, write_json
    from ddpm_jax.training import sharding

    if request.mesh is not None and own_process:
        with_devices(math.prod(sharding.parse(request.mesh).values()))
    if request.json is not None:
        check_writable(request.json)
    costs = plan(experiment_files.build(parsed.function, parsed.knobs), request)
    print(table(costs))
    estimate = None
    if request.accelerator is not None:
        estimate = forecast(costs, request.accelerator, request.utilisation)
        print(forecast_table(estimate, costs, request.utilisation))
    if request.json is not None:
        write_json(request.json, costs._asdict() | ({} if estimate is None else {"forecast": estimate._asdict()}))
    return 0
