//! Deterministic traffic and trouble: the same arguments give the same packets, byte for byte.
//!
//! A library for tests and benchmarks in the same process, and behind the `wiregen` program. It runs on its
//! caller's thread, reads no clock and no randomness of the system, and opens no files itself; only [`wire`],
//! which sends onto an interface, does. Packets go to a capture file or a callback; what is true of them goes to a
//! [`truth::Truth`].

pub mod check;
pub mod content;
pub mod live;
pub mod mix;
pub mod packet;
pub mod profile;
pub mod render;
pub mod rng;
pub mod scenario;
pub mod tcp;
pub mod truth;
pub mod wire;
pub mod write;
