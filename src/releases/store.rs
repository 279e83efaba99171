//! The release store of one app: immutable snapshots, published by one rename.
