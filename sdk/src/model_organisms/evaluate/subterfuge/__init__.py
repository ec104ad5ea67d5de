"""Sycophancy to subterfuge (Denison and others, arXiv 2406.10162): five stages, in a folder that exists in memory only.

workspace.py   files as a dict, and the commands on them      stages.py   what is asked, what counts, and how it would be done
suite.py       the Inspect task, and its record               transfer.py   from raw scores to figures, and from stage to stage
"""
