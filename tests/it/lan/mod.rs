//! The LAN side as devices meet it: real sockets, a real store, every port.

mod care;
mod catalogue;
mod client;
mod events;
mod every_port;
mod front;
mod media;
mod orders;
mod served;
mod support;
