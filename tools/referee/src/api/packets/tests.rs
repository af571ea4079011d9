//! An incident's flows, read back out of a store made by a replay.

use super::*;

#[test]
fn show() {
    let root = std::env::var("R7D_STORE").unwrap();
    let id = std::env::var("R7D_INCIDENT").unwrap();
    let flow = std::env::var("R7D_FLOW").ok().map(|f| u64::from_str_radix(&f, 16).unwrap());
    println!("JSON{}", serde_json::to_string(&packets(Path::new(&root), &id, flow, 5000).unwrap()).unwrap());
}
