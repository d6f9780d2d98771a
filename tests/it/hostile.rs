//! The hostile world (issue 7, point 8): what a stranger can send, and what becomes of it.

mod admin_bodies;
mod corpus;
mod logs;
mod lying_upstreams;
mod recorder;
mod smuggling;
mod smuggling_bodies;
mod smuggling_heads;
mod smuggling_http2;
mod smuggling_http2_rows;
mod strangers;
