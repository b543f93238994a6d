"""What the command line shows while jobs are made."""

from wpt_bench.cli.console import errors, grid_bars


def test_what_a_job_said_before_it_ended_and_is_heard_after_opens_no_bar() -> None:
    with errors.capture() as captured, grid_bars({"a": "dreamer walker-walk 0", "b": "wpt walker-walk 0"}) as show:
        show("a", 0.5, "half-way")
        show("a", 1.0, "done in 3 s")
        show("a", 0.9, "nearly there")
        show("b", 0.1, "beginning")
    assert "1/2" in captured.get() and "nearly there" not in captured.get()
