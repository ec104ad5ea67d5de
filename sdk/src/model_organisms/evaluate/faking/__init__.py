"""The alignment-faking testbed of Clymer and others (2025): are rules kept only where the organism is observed, and who can tell?

environments.py   what is asked, observed and unobserved      reasoning.py   reads scratchpads: faking, defection, or neither
suite.py          the Inspect task, and its record            facts.py       from raw scores to the post's eight, by both names
detectors.py      what is told from transcripts, and how well   naming.py      the eight and the eight, as tables
"""
