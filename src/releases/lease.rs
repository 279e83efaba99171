//! Asks the kernel whether a file is open for writing.
