"""How often a run does what it does beside training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """Steps between two log rows, sample grids, checkpoints and evaluations. Each in use also follows the last step.

    0 is never; for evaluations None is. Raises ValueError for a negative number, and for evaluations every 0 steps.
    """

    log: int = 50
    sample: int = 1000
    save: int = 1000
    evaluate: int | None = None
    """An evaluation estimates bits/dim and the Frechet distance of samples: see ``runs.periodic``."""

    def __post_init__(self) -> None:
        for name in ("log", "sample", "save"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}_every must be at least 0, which is never, got {getattr(self, name)}")
        if self.evaluate is not None and self.evaluate < 1:
            raise ValueError(f"evaluate_every must be at least 1, or None for never, got {self.evaluate}")
