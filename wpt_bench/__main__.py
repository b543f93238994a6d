"""``python -m wpt_bench`` is ``wpt-bench``."""

from wpt_bench.cli import main

if __name__ == "__main__":
    main()
