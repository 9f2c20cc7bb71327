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

    if request.compile:
        if own_process:
            with_devices(1)  # the compilers need no accelerator: JAX then does not search for one
        return _compile(parsed.function, parsed.knobs, request)
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


def _compile(function, knobs: dict, request) -> int:
    """Prints what the accelerator's compiler makes of the programs; returns the exit status."""
    from ddpm_jax.runs import experiment_files
    from ddpm_jax.runs.accelerators import named
    from ddpm_jax.runs.device_plan import cost_table, device_plan
    from ddpm_jax.system.files import check_writable, write_json

    if request.accelerator is None:
        raise ValueError("--compile requires --accelerator, the device to compile for")
    if request.json is not None:
        check_writable(request.json)
    experiment, costs = experiment_files.build(function, knobs), []
    for cost in device_plan(experiment, request, named(request.accelerator)):
        print(cost_table(cost), end="\n\n", flush=True)
        costs.append(cost._asdict() | {"compiled": cost.compiled._asdict()})
    if request.json is not None:
        write_json(request.json, costs)
    return 0
