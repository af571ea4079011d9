//! `incidents/{id}/packets`: the packets of an incident, decoded, for its diagrams.
//!
//! API thread; the store is read on threads for files. The table is what `routes` takes in.

use super::routes::Route;

pub const ROUTES: &[Route] = &[];
