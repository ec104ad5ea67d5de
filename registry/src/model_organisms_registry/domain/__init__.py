"""Rules and the values they decide over: no I/O, no clock."""
