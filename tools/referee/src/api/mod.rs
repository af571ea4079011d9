//! What the program shows to browsers.
//!
//! The server's thread and its blocking jobs; asks nobody who touches packets.

pub mod packets;
