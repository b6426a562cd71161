"""One warm model for every program on this machine, over HTTP and a Unix socket."""
