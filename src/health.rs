//! One probe: an HTTP request, a connection, or a command.
