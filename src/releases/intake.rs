//! When an upload is finished and whole: settled, closed by its writers, and then taken.
