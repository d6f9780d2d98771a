//! From the configuration's words to those of the rooms it sets up.

use crate::config::{AccessLogSampling, RedisTopology, RedisUrl, Secret, Server, TraceParents};
use crate::config::{Config, Dialect as ConfiguredDialect, Forwarded as ConfiguredForwarded};
use crate::gate::reply::Dialect;
use crate::gate::{CorsSettings, DirectorySettings, Forwarded, GuessLimit, Settings, Uploads};
use crate::store::Retention;
use crate::store::redis::{Place, RedisServers};
use crate::store::seal::Sealer;
use crate::telemetry::{LogSampling, Parents, TracerSettings};

/// What the gate is told.
pub(super) fn of(config: &Config, sealer: Option<Sealer>) -> Settings {
    Settings {
        routes: config.routes.clone(),
        dialect: of_dialect(config.dialect),
        trusted_proxies: config.trusted_proxies.clone(),
        guesses: of_guesses(config),
        leaked_secret: config.leaked_secret,
        outside_browser: config.outside_browser,
        cors: CorsSettings { allow_headers: config.cors.allow_headers.clone(), max_age: config.cors.max_age },
        forwarded: match config.forwarded {
            ConfiguredForwarded::None => Forwarded::None,
            ConfiguredForwarded::XForwarded => Forwarded::XForwarded,
            ConfiguredForwarded::Forwarded => Forwarded::Rfc7239,
            ConfiguredForwarded::Both => Forwarded::Both,
        },
        uploads: Uploads { most: config.limits.request_body, patience: config.limits.body_timeout },
        signature_max_skew: config.signature_max_skew,
        directory: DirectorySettings {
            policies: config.policies,
            grace: config.outage_grace,
            patience: config.store.timeout,
        },
        state_dir: config.state_dir.clone(),
        node_name: node_name(config),
        sealer,
    }
}

/// How many invalid tokens one address may try.
pub(super) fn of_guesses(config: &Config) -> GuessLimit {
    GuessLimit { failures: config.brute_force.failures, window: config.brute_force.window }
}

/// How refusals are told.
pub(super) fn of_dialect(dialect: ConfiguredDialect) -> Dialect {
    match dialect {
        ConfiguredDialect::Standard => Dialect::Standard,
        ConfiguredDialect::Iex => Dialect::Iex,
    }
}

/// The host's name and the first listener.
fn node_name(config: &Config) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let listener = config.listeners.first().map(|listener| listener.address.to_string());
    format!("{}/{}", host.trim(), listener.unwrap_or_default())
}

/// How requests are traced, if they are.
pub(super) fn of_tracing(config: &Config) -> Option<TracerSettings> {
    let tracing = config.tracing.as_ref()?;
    let header = |(name, value): &(String, Secret)| (name.clone(), value.expose().to_owned());
    Some(TracerSettings {
        url: tracing.url.clone(),
        headers: tracing.headers.iter().map(header).collect(),
        timeout: tracing.timeout,
        sample: tracing.sample,
        parents: match tracing.parents {
            TraceParents::Trusted => Parents::Trusted,
            TraceParents::Always => Parents::Always,
            TraceParents::Never => Parents::Never,
        },
        service_name: tracing.service_name.clone(),
        instance: node_name(config),
        client_address: tracing.client_address,
    })
}

/// Which requests get a line in the access log; `None`: all.
pub(super) fn of_sampling(config: &Config) -> Option<LogSampling> {
    let AccessLogSampling { sample, refused, errors, slow } = config.access_log_sampling?;
    Some(LogSampling { part: sample, refused, errors, slow })
}

/// How long a store keeps things.
pub(super) fn of_retention(config: &Config) -> Retention {
    Retention { usage: config.usage_retention, stranded: config.reclaim_window, ..Retention::default() }
}

/// Where a Redis is.
pub(super) fn of_redis(url: &RedisUrl) -> RedisServers {
    let place = |server: &Server| Place { host: server.host.clone(), port: server.port };
    let places = |servers: &[Server]| servers.iter().map(place).collect();
    match &url.topology {
        RedisTopology::Standalone(server) => RedisServers::Standalone(format!("redis://{server}")),
        RedisTopology::Sentinel { sentinels, master } => {
            RedisServers::Sentinel { sentinels: places(sentinels), master: master.clone() }
        }
        RedisTopology::Cluster { nodes } => RedisServers::Cluster { nodes: places(nodes) },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn retention(more: &str) -> Retention {
        let minimal = include_str!("../../tests/config/good/minimal.yaml");
        let config = crate::config::parse(&format!("{more}{minimal}"), Path::new("proxy.yaml"), &|_| None);
        of_retention(&config.unwrap())
    }

    #[test]
    fn stores_keep_things_as_long_as_the_configuration_says_and_as_ever_where_it_says_nothing() {
        let days = |days: u64| std::time::Duration::from_hours(24 * days);
        assert_eq!(retention(""), Retention::default());
        let told = retention("usage: {retention: 31d}\nlease: {reclaim_window: 30d}\n");
        assert_eq!(told, Retention { usage: days(31), stranded: days(30), ..Retention::default() });
        assert_eq!(retention("usage: {}\nlease: {}\n"), Retention::default());
    }
}
