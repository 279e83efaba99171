//! One task an app: an event goes into the model, and the commands that come out act on the world.
