//! Unit files: from a `Service` to text that can mean nothing else.
