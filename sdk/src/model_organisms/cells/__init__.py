"""Cells: the jailed processes where plaintext weights live. A registry starts them, and so does a researcher's own glove box.

launcher.py  what a cell sees and may do      confine.py, landlock.py, seccomp.py  how it gives up the rest
walls.py     attacks the result from inside   worker.py, lean.py                   what runs in it
starting.py  a cell before its first bundle   warden.py                            starts and reaps the processes
cell.py      a cell as its owner holds it     tenant.py                            one session's place in it
calls.py     what comes of a call             desk.py                              the cell's own end
channel.py, frames.py, questions.py, seal.py  what crosses between the two
"""
