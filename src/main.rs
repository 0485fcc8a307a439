//! `comptoir`: the one binary of the box. `comptoir help` lists what it can do.

fn main() {}
