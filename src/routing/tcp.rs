//! The tcp plane: accepts, connects, and moves bytes both ways.
