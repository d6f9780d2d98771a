//! Every target by name. Each panics where a promise is broken.

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        $(pub mod $name;)+
        /// All of them.
        pub const ALL: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::check)),+];
    };
}

targets!(
    config_yaml,
    dataset,
    domain_rule,
    framing,
    idempotency,
    import,
    journal,
    log_line,
    page,
    people,
    price_header,
    proxy_header,
    query,
    record,
    redis_reply,
    route,
    signature,
    tally,
    target,
    token,
    trace_context,
);
