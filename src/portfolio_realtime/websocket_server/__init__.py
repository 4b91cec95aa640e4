"""From publications to browsers: who may see what, what is pending for whom, and the bytes on the socket."""
