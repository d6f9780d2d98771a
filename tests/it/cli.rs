//! The commands: the real binary against an admin API on a real socket.

mod check;
mod failures;
mod tokens;
mod tool;
