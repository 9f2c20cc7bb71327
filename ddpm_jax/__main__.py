"""``python -m ddpm_jax`` is ``ddpm-jax``."""

import sys

from ddpm_jax.cli import main

sys.exit(main())
