"""gRPC servicers behind one door."""
