"""Methods held against WPT: one file is one method."""
