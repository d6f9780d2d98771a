//! What an operator sees of a gate: metrics, dashboard and rules, traces, logs; and that there is nothing else to be seen.

mod dashboard;
mod logs;
mod metrics;
mod surface;
mod traces;
