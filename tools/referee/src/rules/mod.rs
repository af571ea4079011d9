//! `referee rules …`: what is wrong with rule files, what there is to write them with, what they would do on packets of
//! yesterday, and why an incident was reported.
//!
//! Main thread. Loading is here for all commands; rules are run by the same worker and judge as ever.

mod backtest;
mod cases;
pub mod check;
pub mod explain;
pub mod list;
pub mod load;
pub mod test;
