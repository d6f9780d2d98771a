//! What an operator sees of a gate: metrics, dashboard and rules, and that there is nothing else to be seen.

mod dashboard;
mod metrics;
mod surface;
