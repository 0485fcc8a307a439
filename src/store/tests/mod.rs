//! What the store promises as a whole: recovery, bounds, durability.

mod blobs;
mod bounds;
mod devices;
mod recovery;
