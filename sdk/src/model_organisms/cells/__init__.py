"""Cells: the jailed processes where plaintext weights live. A registry starts them, and so does a researcher's own glove box.

launcher.py  what a cell sees and may do      confine.py, landlock.py, seccomp.py  how it gives up the rest
walls.py     attacks the result from inside   worker.py                            what runs in it
cell.py      a cell as its owner holds it     warden.py                            starts and reaps the processes
channel.py, frames.py, seal.py                what crosses between the two
"""
