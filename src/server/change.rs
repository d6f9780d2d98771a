//! What of a configuration takes effect by reading it anew, and what needs a new process.
//!
//! One exhaustive pattern: a new key of the configuration does not compile until it is said here to which it belongs.

use crate::config::Config;

/// The keys whose values differ and take effect only in a new process (a restart or an upgrade).
pub(super) fn fixed(started: &Config, new: &Config) -> Vec<&'static str> {
    let Config {
        // Where it comes from, and what is told of it.
        path: _,
        digest: _,
        files: _,
        // Taken by a reload.
        dialect: _,
        trusted_proxies: _,
        leaked_secret: _,
        outside_browser: _,
        forwarded: _,
        cors: _,
        shutdown_delay: _,
        shutdown_grace: _,
        signature_max_skew: _,
        upstreams,
        routes: _,
        limits: _,
        // Fixed.
        state_dir,
        threads,
        listeners,
        admin,
        store,
        master_key,
        access_log,
        outage_grace,
        reclaim_window,
        usage_retention,
        policies,
        metrics,
        authz,
        brute_force,
        access_log_sampling,
        tracing,
    } = new;
    let kept = |upstreams: &std::collections::BTreeMap<String, crate::config::Upstream>| -> usize {
        upstreams.values().map(|upstream| upstream.keep_alive).sum()
    };
    let keys = [
        ("state_dir", *state_dir != started.state_dir),
        ("threads", *threads != started.threads),
        ("listeners", *listeners != started.listeners),
        ("admin", *admin != started.admin || *metrics != started.metrics),
        ("authz", *authz != started.authz),
        ("brute_force", *brute_force != started.brute_force),
        ("tracing", *tracing != started.tracing),
        ("store", *store != started.store),
        ("master_key", *master_key != started.master_key),
        (
            "access_log",
            *access_log != started.access_log || *access_log_sampling != started.access_log_sampling,
        ),
        ("outage.grace", *outage_grace != started.outage_grace),
        ("lease.reclaim_window", *reclaim_window != started.reclaim_window),
        ("usage.retention", *usage_retention != started.usage_retention),
        ("policies", *policies != started.policies),
        ("upstreams.keep_alive", kept(upstreams) != kept(&started.upstreams)),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_each_key_that_needs_a_new_process() {
        let routes =
            "upstreams: {a: {servers: [\"127.0.0.1:1\"]}}\nroutes: [{path: /a, upstream: a, access: core}]\n";
        let base = "listeners: [{address: \"127.0.0.1:0\"}]\n";
        let parse = |text: &str| {
            crate::config::parse(text, Path::new("proxy.yaml"), &|_| None).unwrap_or_else(|e| panic!("{e}"))
        };
        let started = parse(&format!("{base}{routes}"));
        let with = |more: &str| fixed(&started, &parse(&format!("{base}{more}{routes}")));
        let table: [(&str, &[&str]); 10] = [
            ("", &[]),
            ("dialect: iex\ntrusted_proxies: [10.0.0.0/8]\nshutdown_grace: 1s\nshutdown_delay: 1s\n", &[]),
            ("state_dir: ./elsewhere\n", &["state_dir", "store"]),
            ("threads: 3\n", &["threads"]),
            ("admin: {address: \"127.0.0.1:0\"}\n", &["admin"]),
            ("access_log: off\n", &["access_log"]),
            ("outage: {grace: 1m}\n", &["outage.grace"]),
            ("lease: {reclaim_window: 30d}\n", &["lease.reclaim_window"]),
            ("usage: {retention: 500d}\n", &["usage.retention"]),
            ("policies: 1000\nthreads: 1\n", &["threads", "policies"]),
        ];
        for (more, expected) in table {
            assert_eq!(with(more), expected, "{more}");
        }
        let elsewhere = parse(&format!("listeners: [{{address: \"127.0.0.2:0\"}}]\n{routes}"));
        assert_eq!(fixed(&started, &elsewhere), ["listeners"]);
    }
}
