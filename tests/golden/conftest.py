"""The scripts in this directory are run by hand, with peers that the tests do without: nothing to collect."""

collect_ignore_glob = ["make_*.py", "recording.py"]
