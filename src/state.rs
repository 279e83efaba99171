//! What survives a restart: a versioned type of its own, written atomically and checked when read.
