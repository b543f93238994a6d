"""wpt-bench: how much online experience does non-curated offline data save?"""

from importlib.metadata import version

__version__ = version("wpt-bench")
