//! Deterministic traffic and trouble: the same arguments give the same packets, byte for byte.
//!
//! A library for tests and benchmarks in the same process, and behind the `wiregen` program. It runs on its
//! caller's thread, reads no clock and no randomness of the system, and opens no files itself. Packets go to a
//! capture file or a callback; what is true of them goes to a [`truth::Truth`].
//!
//! Two modules are the exception to all of that: [`wire`] sends packets onto an interface, and [`peers`] are
//! services and clients on real sockets, for a live network.

pub mod check;
pub mod content;
pub mod encap;
pub mod live;
pub mod mirror;
pub mod mix;
pub mod packet;
pub mod peers;
pub mod profile;
pub mod render;
pub mod rng;
pub mod scenario;
pub mod tcp;
pub mod truth;
pub mod twotap;
pub mod wire;
pub mod write;
