//! What the store promises as a whole: recovery, bounds, durability.

mod blobs;
mod bounds;
mod devices;
mod power_cut;
mod recovery;
