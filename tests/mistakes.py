"""What a mistake on the command line gets."""

from ddpm_jax.commands import main


def fails(capsys, *argv: str) -> str:
    """The one line on standard error of a command that ends with exit status 2."""
    assert main(list(argv)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "Traceback" not in message
    return message
