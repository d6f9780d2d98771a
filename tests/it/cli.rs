//! The commands: the real binary against an admin API on a real socket.

mod audit;
mod check;
mod failures;
mod health;
mod members;
mod nodes;
mod sign;
mod tokens;
pub(crate) mod tool;
mod usage;
