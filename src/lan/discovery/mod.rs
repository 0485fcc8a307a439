//! Discovery on UDP 57854: devices find the box, the box finds devices. It only ever says *where*; who somebody is gets
//! proven in the session that follows.

pub mod wire;
