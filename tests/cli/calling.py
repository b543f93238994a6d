"""The command line, called in this process."""

from pathlib import Path

from typer.testing import CliRunner, Result

from wpt_bench.cli import app


def invoke(*arguments: str | Path) -> Result:
    """Whatever becomes of it, but for a traceback."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


def call(*arguments: str | Path, code: int = 0) -> str:
    """Standard output, or with a non-zero ``code`` the one line on standard error that says what is wrong."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output + result.stderr
    if code == 0:
        return result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith(("Error: ", "Failed: "))]
    return line
