"""Shows the mathematics of diffusion in pictures, on one page: tour [DIR or data set] [--out FOLDER]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse_optional_first
    from ddpm_jax.studies.requests import TourRequest

    request = parse_optional_first(TourRequest, args, "tour")

    from ddpm_jax.commands.screen import Screen
    from ddpm_jax.studies.tour.page import tour

    print(tour(request, Screen()))
    return 0
