"""Every figure of the report, one file for each kind; ``drawing`` is what they share."""
